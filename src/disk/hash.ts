import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { zeroes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Disk } from './disk.ts';
import { readBlocks } from './read-blocks.ts';

/** How many MiB of zeros are hashed before others, an abort among them, get their turn. */
const TURN = 16;

/**
 * SHA-256 over every byte of the disk as a guest would read it, zeros included, in lower-case hexadecimal: the same as
 * `sha256sum` of the raw image. Known zeros are hashed without being read; what no layer says counts as zeros.
 */
export async function hashDisk(disk: Disk, { signal }: CallOptions = {}): Promise<string> {
  const hash = createHash('sha256');
  let at = 0;
  const padTo = async (offset: number) => {
    let pieces = 0;
    for (const piece of zeroes(offset - at)) {
      if (++pieces % TURN === 0) await setImmediate();
      signal?.throwIfAborted();
      hash.update(piece);
    }
  };
  for await (const { offset, data } of readBlocks(disk, { signal, reuseMemory: true })) {
    await padTo(offset);
    hash.update(data);
    at = offset + data.byteLength;
  }
  await padTo(disk.size);
  return hash.digest('hex');
}
