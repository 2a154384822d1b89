import { assertRange, type ByteSource, openFileSource } from '../bytes/index.ts';
import { type CallOptions, FormatError, shownAs } from '../core/index.ts';
import { type Disk, type Extent, joinExtents, rangeOf } from '../disk/index.ts';
import { compressionOf, MAGIC_LENGTH } from './decompress.ts';
import { errorOf } from './findings.ts';
import type { OvaMetadata } from './ova-xml.ts';
import type { XvaDisk } from './xva-disks.ts';
import { XvaFault } from './xva-walk.ts';
import { createWalker } from './xva-walker.ts';

/** A disk inside an archive, at random access. Closing it closes nothing: the image is closed as a whole. */
export interface XvaImageDisk extends XvaDisk, Disk {}

/** An uncompressed archive as a file, opened. */
export interface XvaImage extends AsyncDisposable {
  /** The whole of `ova.xml`. */
  readonly metadata: OvaMetadata;
  /** In the order of their ids as text. */
  readonly disks: readonly XvaImageDisk[];
  /** Closes the source. */
  close(): Promise<void>;
}

export interface OpenXvaOptions extends CallOptions {
  /**
   * The name that errors give to the source.
   * @defaultValue the path, where `source` is one
   */
  readonly file?: string | undefined;
}

/** Between two chunks lie a checksum, two headers and some padding: what one read takes. In bytes. */
const HEADERS = 2048;

/** Where a chunk's data lies. */
interface Piece {
  /** On the disk. */
  readonly offset: number;
  readonly length: number;
  /** In the archive. */
  readonly at: number;
}

/**
 * Opens an uncompressed archive, whose disks can then be read at random access: served, compared, restored alone. It
 * passes over the archive once, from header to header, and checks its structure to its end; checksums are not verified,
 * `checkXva` does that. The image owns the source (not where this rejects). Memory: some 50 bytes for each MiB of data.
 *
 * @throws FormatError `XVA_COMPRESSED` for a compressed archive; `XVA_…` for what is wrong with its structure.
 */
export async function openXva(source: string | ByteSource, options: OpenXvaOptions = {}): Promise<XvaImage> {
  if (typeof source !== 'string') return openFrom(source, options);
  const file = await openFileSource(source);
  try {
    return await openFrom(file, { file: source, ...options });
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openFrom(source: ByteSource, { file, signal }: OpenXvaOptions): Promise<XvaImage> {
  let metadata: OvaMetadata | undefined;
  const pieces = new Map<string, { disk: XvaDisk; chunks: Piece[] }>();
  const walker = await createWalker('skip', (event) => {
    if (event.kind === 'metadata') {
      metadata = event.metadata;
      for (const disk of event.disks) pieces.set(disk.id, { disk, chunks: [] });
    } else if (event.kind === 'chunk' && event.length > 0) {
      pieces.get(event.disk.id)!.chunks.push({ offset: event.offset, length: event.length, at: event.dataAt });
    }
  });
  const buffer = new Uint8Array(HEADERS);
  try {
    for (let at = 0; at < source.size; ) {
      signal?.throwIfAborted();
      at += walker.toSkip;
      walker.skipped();
      if (at >= source.size) break; // cut within what nobody wanted
      const piece = buffer.subarray(0, Math.min(HEADERS, source.size - at));
      await source.readInto(piece, at, { signal });
      if (at === 0) assertPlain(piece, file);
      at += piece.byteLength;
      walker.give(piece);
    }
    walker.end();
  } catch (error) {
    throw error instanceof XvaFault ? errorOf(error.finding, file, error) : error;
  }
  const close = () => source.close();
  return {
    metadata: metadata!,
    disks: [...pieces.values()].map(({ disk, chunks }) => imageDisk(source, disk, chunks)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function assertPlain(start: Uint8Array, file: string | undefined): void {
  const compression = compressionOf(start.subarray(0, MAGIC_LENGTH));
  if (compression === 'none') return;
  const tool = compression === 'zstd' ? 'zstd -d' : 'gunzip';
  const expected = `an uncompressed archive: decompress it (${tool}), or read it with readXvaStream`;
  throw new FormatError('XVA_COMPRESSED', { what: 'archive', offset: 0, expected, actual: compression, file });
}

/** Between the chunks there are zeros. */
function imageDisk(source: ByteSource, disk: XvaDisk, chunks: readonly Piece[]): XvaImageDisk {
  /** Index of the first chunk that ends behind `offset`. */
  function firstBehind(offset: number): number {
    let low = 0;
    let high = chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { offset: start, length } = chunks[middle]!;
      if (start + length <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function* runs(from: number, to: number): Generator<Extent & { readonly at?: number }, void> {
    let done = from;
    for (let i = firstBehind(from); i < chunks.length && chunks[i]!.offset < to; i++) {
      const chunk = chunks[i]!;
      const start = Math.max(chunk.offset, from);
      const end = Math.min(chunk.offset + chunk.length, to);
      if (start > done) yield { offset: done, length: start - done, kind: 'zero' };
      yield { offset: start, length: end - start, kind: 'data', at: chunk.at + (start - chunk.offset) };
      done = end;
    }
    if (done < to) yield { offset: done, length: to - done, kind: 'zero' };
  }

  const shown: XvaImageDisk = {
    ...disk,
    extents(options = {}) {
      const { offset, end } = rangeOf(`disk ${disk.id}`, disk.size, options);
      return joinExtents(runs(offset, end));
    },
    async readInto(target, offset, options) {
      assertRange(`disk ${disk.id}`, disk.size, offset, target.byteLength);
      for (const run of runs(offset, offset + target.byteLength)) {
        const piece = target.subarray(run.offset - offset, run.offset - offset + run.length);
        if (run.at === undefined) piece.fill(0);
        else await source.readInto(piece, run.at, options);
      }
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
  return shownAs(shown, 'Disk', () => ({ of: 'XVA', size: disk.size, id: disk.id, vdiUuid: disk.vdiUuid }));
}
