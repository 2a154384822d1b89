import { type FileHandle, open, rm } from 'node:fs/promises';
import { isZero } from '../bytes/index.ts';
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
  /** Called after each block with the bytes written and left out so far, as an offset into the disk. */
  readonly onOffset?: ((offset: number) => void) | undefined;
}

/**
 * Writes a disk, or a stream of its blocks, as a raw image at `path`, which must not exist. The file is sparse: zeros
 * are left out in runs of 64 KiB. It is durable when this resolves, and removed when it rejects.
 *
 * @returns the bytes that were written, holes not counted.
 */
export async function writeRaw(from: Disk | BlockStream, path: string, options: WriteRawOptions = {}): Promise<number> {
  const blocks = isDisk(from) ? readBlocks(from, options) : from;
  const size = options.size ?? (isDisk(from) ? from.size : undefined);
  if (size === undefined) throw new TypeError('writeRaw: a stream of blocks needs `size`');
  const file = await open(path, 'wx');
  try {
    let written = 0;
    for await (const block of blocks) {
      options.signal?.throwIfAborted();
      if (block.offset + block.data.byteLength > size) {
        throw new RangeError(
          `writeRaw: a block of ${block.data.byteLength} bytes at ${block.offset} ends past ${size}`,
        );
      }
      written += await writeSparse(file, block);
      options.onOffset?.(block.offset + block.data.byteLength);
    }
    await file.truncate(size);
    await file.sync();
    return written;
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** Writes the runs of a block that are not zero. */
async function writeSparse(file: FileHandle, { offset, data }: Block): Promise<number> {
  let written = 0;
  for (let start = 0; start < data.byteLength; ) {
    let end = start;
    while (end < data.byteLength && !isZero(granule(data, end))) end += granule(data, end).byteLength;
    if (end > start) {
      await writeFully(file, data.subarray(start, end), offset + start);
      written += end - start;
    }
    start = end + (end < data.byteLength ? granule(data, end).byteLength : 0);
  }
  return written;
}

function granule(data: Uint8Array, at: number): Uint8Array {
  return data.subarray(at, at + GRANULE);
}

async function writeFully(file: FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await file.write(data, done, data.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

function isDisk(from: Disk | BlockStream): from is Disk {
  return 'extents' in from;
}
