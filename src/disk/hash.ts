import { createHash } from 'node:crypto';
import { zeroes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Disk } from './disk.ts';
import { readBlocks } from './read-blocks.ts';

/**
 * SHA-256 over every byte of the disk as a guest would read it, zeros included, in lower-case hexadecimal: the same as
 * `sha256sum` of the raw image. Known zeros are hashed without being read.
 */
export async function hashDisk(disk: Disk, options: CallOptions = {}): Promise<string> {
  const hash = createHash('sha256');
  let at = 0;
  const padTo = (offset: number) => {
    for (const piece of zeroes(offset - at)) {
      options.signal?.throwIfAborted();
      hash.update(piece);
    }
  };
  for await (const { offset, data } of readBlocks(disk, options)) {
    padTo(offset);
    hash.update(data);
    at = offset + data.byteLength;
  }
  padTo(disk.size);
  return hash.digest('hex');
}
