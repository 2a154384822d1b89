import type { BlockStream, Disk } from '../../../src/disk/index.ts';

/** All bytes of a small disk. */
export async function bytesOf(disk: Disk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size);
  await disk.readInto(bytes, 0);
  return bytes;
}

/** All bytes of a disk that flows: what does not arrive is taken from `under`. */
export async function poured(blocks: BlockStream, size: number, under = new Uint8Array(size)): Promise<Uint8Array> {
  const bytes = under.slice();
  for await (const { offset, data } of blocks) bytes.set(data, offset);
  return bytes;
}
