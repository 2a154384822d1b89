import { createHash } from 'node:crypto';
import { exactly, loadXxh64, type SizedStream, type Xxh64, xxh64Hex } from '../bytes/index.ts';
import { anySignal, type CallOptions } from '../core/index.ts';
import { type CompressOptions, compressed } from './compress.ts';
import { XVA_CHUNK_SIZE, type XvaChecksum } from './constants.ts';
import { encodeTarHeader, TAR_BLOCK, tarPadding } from './tar-entry.ts';
import { chunkName, type PlannedDisk, planXva, type XvaContents, type XvaPlan } from './xva-plan.ts';

export interface XvaStreamOptions extends CallOptions, CompressOptions {
  /**
   * Hosts of 8.1 and later read both kinds, those before only `'sha1'`.
   * @defaultValue `'xxhash'`
   */
  readonly checksum?: XvaChecksum | undefined;
  /**
   * How many chunks of 1 MiB are being read while the consumer works on one.
   * @defaultValue `8`
   */
  readonly readAhead?: number | undefined;
}

/** An archive whose bytes are yet to be read. */
export interface XvaOutput {
  /** In bytes; `undefined` where it is compressed. */
  readonly length: number | undefined;
  /** Without compression, in bytes. */
  readonly plainLength: number;
  /** The archive's bytes, to be iterated once. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

const SUFFIX: Readonly<Record<XvaChecksum, string>> = { xxhash: '.xxhash', sha1: '.checksum' };

/**
 * An archive as hosts write and read it: `ova.xml`, then the disks in the order of their ids as text, chunks of 1 MiB
 * with their checksums, zeros left out as far as the disks' extents tell. Without compression its length is known
 * before its first byte. The disks' extents are asked for at once; their data is read when the chunks are, once. Memory:
 * the read-ahead.
 *
 * Not every metadata is an archive's: see {@link xvaDisks} for which disks must have data.
 *
 * @throws RangeError where the disks are not exactly those of the metadata, or of other sizes; FormatError `XVA_METADATA`.
 */
export function xvaStream(
  contents: XvaContents,
  options?: XvaStreamOptions & { readonly compression?: undefined },
): Promise<XvaOutput & SizedStream>;
export function xvaStream(contents: XvaContents, options?: XvaStreamOptions): Promise<XvaOutput>;
export async function xvaStream(contents: XvaContents, options: XvaStreamOptions = {}): Promise<XvaOutput> {
  const { checksum = 'xxhash', compression } = options;
  const plan = await planXva(contents, checksum, options);
  const plain = exactly(plan.length, emit(plan, checksum, await loadXxh64(), options), 'XVA');
  if (compression === undefined) return { length: plan.length, plainLength: plan.length, chunks: plain };
  return { length: undefined, plainLength: plan.length, chunks: compressed(plain, options) };
}

async function* emit(
  { head, disks }: XvaPlan,
  checksum: XvaChecksum,
  xxh64: Xxh64,
  options: XvaStreamOptions,
): AsyncGenerator<Uint8Array, void> {
  const sum = (data: Uint8Array) =>
    checksum === 'xxhash' ? xxh64Hex(xxh64.hash(data)) : createHash('sha1').update(data).digest('hex');
  yield head;
  for (const disk of disks) {
    for await (const { name, data } of readChunks(disk, options)) {
      yield encodeTarHeader({ name, size: data.byteLength });
      yield data;
      // Padding, checksum, padding in one piece: small writes cost more than their bytes.
      yield entry(`${name}${SUFFIX[checksum]}`, Buffer.from(sum(data)), tarPadding(data.byteLength));
    }
  }
  yield new Uint8Array(2 * TAR_BLOCK);
}

/** An entry with its padding, `before` zeros in front of it. */
function entry(name: string, content: Uint8Array, before: number): Uint8Array {
  const size = content.byteLength;
  const bytes = new Uint8Array(before + TAR_BLOCK + size + tarPadding(size));
  bytes.set(encodeTarHeader({ name, size }), before);
  bytes.set(content, before + TAR_BLOCK);
  return bytes;
}

interface NamedChunk {
  readonly name: string;
  readonly data: Uint8Array;
}

/** The chunks of a disk in order, read ahead. */
async function* readChunks(
  { disk, source, numbers }: PlannedDisk,
  { readAhead = 8, signal }: XvaStreamOptions,
): AsyncGenerator<NamedChunk, void> {
  const stop = new AbortController();
  const linked = anySignal(signal, stop.signal);
  const inFlight: Promise<NamedChunk>[] = [];
  const readOne = async (number: number): Promise<NamedChunk> => {
    const offset = number * XVA_CHUNK_SIZE;
    const data = new Uint8Array(Math.min(XVA_CHUNK_SIZE, disk.size - offset));
    await source.readInto(data, offset, { signal: linked });
    return { name: chunkName(disk, number), data };
  };
  try {
    for (const number of numbers) {
      signal?.throwIfAborted();
      const pending = readOne(number);
      pending.catch(() => {}); // not swallowed: awaited below, in order; this keeps Node quiet until then
      inFlight.push(pending);
      if (inFlight.length > readAhead) yield await inFlight.shift()!;
    }
    while (inFlight.length > 0) yield await inFlight.shift()!;
  } finally {
    stop.abort();
    await Promise.allSettled(inFlight);
  }
}
