import { exactly, type SizedStream, zeroes } from '../bytes/index.ts';
import type { CallOptions, TransferMeter } from '../core/index.ts';
import { type Disk, rangeOf, readBlocks } from '../disk/index.ts';
import type { Host } from '../host/index.ts';
import { vhdStream } from '../vhd/index.ts';

export interface ImportOptions extends CallOptions {
  /** `vhd` needs a target that reads as zeros wherever the disk has no data. */
  readonly transport: 'vhd' | 'raw';
  /** Bytes sent so far, and in all. */
  readonly onSent?: ((bytes: number, total: number) => void) | undefined;
  /** Measures whom it waits for, and counts. */
  readonly meter?: TransferMeter | undefined;
}

/** Streams a disk, merged as it is read, into an existing VDI of the host that is at least as large. */
export async function importDisk(
  host: Host,
  vdiRef: string,
  disk: Disk,
  { transport, onSent, meter, signal }: ImportOptions,
): Promise<number> {
  const stream = transport === 'vhd' ? await vhdStream(disk, { signal }) : rawStream(disk, { signal });
  await measured(meter, stream, onSent, (passing, counting) =>
    host.importDisk(vdiRef, passing, { format: transport, signal, onSent: counting }),
  );
  return stream.length;
}

/** Sends a stream under the eyes of a meter. */
export function measured<T>(
  meter: TransferMeter | undefined,
  { length, chunks }: SizedStream,
  onSent: ImportOptions['onSent'],
  send: (stream: SizedStream, onSent: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  if (meter === undefined) return send({ length, chunks }, (bytes) => onSent?.(bytes, length));
  const sending = send({ length, chunks: meter.through(chunks) }, (bytes) => {
    meter.bytes = bytes;
    onSent?.(bytes, length);
  });
  return meter.untilDone(sending);
}

/** Every byte of a disk, zeros included, in order. */
export function rawStream(disk: Disk, options: CallOptions = {}): SizedStream {
  return { length: disk.size, chunks: exactly(disk.size, denseChunks(disk, options), 'raw disk') };
}

async function* denseChunks(disk: Disk, options: CallOptions): AsyncGenerator<Uint8Array, void> {
  let at = 0;
  for await (const { offset, data } of readBlocks(disk, options)) {
    yield* zeroes(offset - at);
    yield data;
    at = offset + data.byteLength;
  }
  yield* zeroes(disk.size - at);
}

/** A disk with zeros behind its end: storage rounds sizes up, and not every storage gives zeros. */
export function grown(disk: Disk, size: number): Disk {
  return {
    size,
    async *extents(options = {}) {
      const { offset, end } = rangeOf('grown disk', size, options);
      const inside = Math.min(end, disk.size);
      if (offset < inside) yield* disk.extents({ ...options, offset, length: inside - offset });
      const from = Math.max(offset, disk.size);
      if (from < end) yield { offset: from, length: end - from, kind: 'zero' };
    },
    readInto: (into, offset, options) => disk.readInto(into, offset, options),
    close: () => disk.close(),
    [Symbol.asyncDispose]: () => disk.close(),
  };
}
