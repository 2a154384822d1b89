import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { assertRange, isZero } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Block, BlockStream, Disk } from './disk.ts';
import { readBlocks } from './read-blocks.ts';

const GRANULE = 64 * 1024;

export interface WriteRawOptions extends CallOptions {
  /**
   * The image's size in bytes: needed for a stream of blocks, which does not say it.
   * @defaultValue the disk's size
   */
  readonly size?: number | undefined;
  /**
   * Wait until the image would survive a power cut. What can be made again need not: the wait may take longer than all the rest.
   * @defaultValue `true`
   */
  readonly durable?: boolean | undefined;
  /** Called after each block with the offset up to which the disk is written, or left out because it is zero. */
  readonly onOffset?: ((offset: number) => void) | undefined;
}

/**
 * Writes a disk, or a stream of its blocks, as a raw image at `path`, which must not exist. The file is sparse: zeros
 * are left out in runs of 64 KiB, counted from the start of the disk. It is durable when this resolves, name included, unless
 * `durable` says otherwise, and removed when it rejects. A stream must ascend and not overlap: what is left out is never written over.
 *
 * Memory: the blocks of {@link readBlocks}, or the block at hand of a stream.
 *
 * @returns the bytes that were written, holes not counted.
 */
export async function writeRaw(from: Disk | BlockStream, path: string, options: WriteRawOptions = {}): Promise<number> {
  const { durable = true } = options;
  const size = options.size ?? (isDisk(from) ? from.size : undefined);
  if (size === undefined) throw new TypeError('writeRaw: a stream of blocks needs `size`');
  assertRange('writeRaw', size, 0, size);
  options.signal?.throwIfAborted();
  const file = await open(path, 'wx');
  try {
    const written = await writeBlocks(
      file,
      isDisk(from) ? readBlocks(from, { signal: options.signal, reuseMemory: true }) : from,
      size,
      options,
    );
    await file.truncate(size);
    if (durable) await file.sync();
    await file.close();
    if (durable) await syncDirectory(dirname(path));
    return written;
  } catch (error) {
    await Promise.allSettled([file.close()]); // `error` says what went wrong first
    await rm(path, { force: true });
    throw error;
  }
}

async function writeBlocks(
  file: FileHandle,
  blocks: BlockStream,
  size: number,
  { signal, onOffset }: WriteRawOptions,
): Promise<number> {
  let written = 0;
  let at = 0;
  for await (const block of blocks) {
    signal?.throwIfAborted();
    assertRange('writeRaw', size, block.offset, block.data.byteLength);
    if (block.offset < at)
      throw new RangeError(`writeRaw: a block at ${block.offset} comes after one that ends at ${at}`);
    written += await writeSparse(file, block);
    at = block.offset + block.data.byteLength;
    onOffset?.(at);
  }
  return written;
}

/** Writes the runs of a block that are not zero. */
async function writeSparse(file: FileHandle, { offset, data }: Block): Promise<number> {
  let written = 0;
  for (let start = 0; start < data.byteLength; ) {
    let end = start;
    let next = nextEdge(offset, data, end);
    while (end < data.byteLength && !isZero(data.subarray(end, next))) {
      end = next;
      next = nextEdge(offset, data, end);
    }
    if (end > start) await writeFully(file, data.subarray(start, end), offset + start);
    written += end - start;
    start = next;
  }
  return written;
}

/** Where in `data` the granule of the disk that holds `at` ends. */
function nextEdge(offset: number, data: Uint8Array, at: number): number {
  return Math.min(at + GRANULE - ((offset + at) % GRANULE), data.byteLength);
}

async function writeFully(file: FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await file.write(data, done, data.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

/** What file systems say that cannot sync a directory: over a network, mostly. There the file's own sync has to do. */
const CANNOT_SYNC_DIRECTORY: ReadonlySet<string | undefined> = new Set(['EINVAL', 'ENOTSUP']);

/** Makes the names in a directory durable; Windows has no such call. */
async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } catch (error) {
    if (!CANNOT_SYNC_DIRECTORY.has((error as NodeJS.ErrnoException).code)) throw error;
  } finally {
    await directory.close();
  }
}

function isDisk(from: Disk | BlockStream): from is Disk {
  return 'extents' in from;
}
