import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { Block, Disk, Extent } from '../src/disk/index.ts';
import { type ParentLink, vhdStreamFromBlocks, writeVhd } from '../src/vhd/index.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;
const noise = randomFillSync(new Uint8Array(8 * MIB));

/** A disk of random bytes that has data in these runs only. */
function noiseDisk(size: number, runs: Iterable<{ offset: number; length: number }>): Disk {
  const all: Extent[] = [];
  let end = 0;
  const absent = (to: number) => {
    if (to > end) all.push({ offset: end, length: to - end, kind: 'absent' });
  };
  for (const { offset, length } of runs) {
    absent(offset);
    all.push({ offset, length, kind: 'data' });
    end = offset + length;
  }
  absent(size);
  return {
    size,
    async *extents({ offset = 0, length = size - offset } = {}) {
      for (const extent of all) {
        const from = Math.max(extent.offset, offset);
        const to = Math.min(extent.offset + extent.length, offset + length);
        if (from < to) yield { ...extent, offset: from, length: to - from };
      }
    },
    async readInto(target, offset) {
      const at = (offset * 7) % (noise.byteLength - target.byteLength);
      target.set(noise.subarray(at, at + target.byteLength));
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
}

/** Evenly spread: of each `every` pieces of `length` bytes one, from the piece `first` on. */
function* spread(
  size: number,
  length: number,
  every: number,
  first = 0,
): Generator<{ offset: number; length: number }> {
  for (let offset = first * length; offset + length <= size; offset += every * length) yield { offset, length };
}

/** A dynamic VHD of `size` bytes in which each `every`-th block holds random bytes. */
export async function makeBase(path: string, size: number, every: number): Promise<string> {
  async function* blocks(): AsyncGenerator<Block, void> {
    for (const { offset } of spread(size, BLOCK, every)) yield { offset, data: randomFillSync(new Uint8Array(BLOCK)) };
  }
  return (await writeVhd({ size, blocks: blocks() }, path)).uuid;
}

/** A differencing VHD that holds one of each `every` pieces of `granule` bytes. */
export async function makeDelta(
  path: string,
  size: number,
  parent: ParentLink,
  { granule, every, first }: { granule: number; every: number; first: number },
): Promise<string> {
  return (await writeVhd(noiseDisk(size, spread(size, granule, every, first)), path, { parent })).uuid;
}

/** A VHD of `size` bytes with every block allocated and nothing in them: sparse, whatever its size. */
export async function makeHuge(path: string, size: number): Promise<void> {
  const count = Math.ceil(size / BLOCK);
  const { chunks, length } = vhdStreamFromBlocks({ size, blockIndexes: Array(count).keys() }, nothing());
  const headLength = length - 512 - count * (BLOCK + 512);
  await using file = await open(path, 'wx');
  let at = 0;
  for await (const chunk of chunks) {
    const piece = chunk.subarray(0, headLength - at);
    await file.write(piece, 0, piece.byteLength, at);
    if (at === 0) await file.write(piece, 0, 512, length - 512);
    at += piece.byteLength;
    if (at >= headLength) break;
  }
}

async function* nothing(): AsyncGenerator<Block, void> {}

/** A chain of `count` small VHDs; resolves with the path of the last. */
export async function makeChain(folder: string, count: number): Promise<string> {
  const size = 1024 * MIB;
  let uuid = await makeBase(`${folder}/0.vhd`, size, size / BLOCK);
  for (let i = 1; i < count; i++) {
    const parent = { uuid, name: `${i - 1}.vhd` };
    uuid = await makeDelta(`${folder}/${i}.vhd`, size, parent, { granule: 4096, every: size / 4096, first: i });
  }
  return `${folder}/${count - 1}.vhd`;
}

/** A file of random bytes, as many as must be read of these: what `cat` is given. */
export async function makePlain(path: string, length: number): Promise<void> {
  await using file = await open(path, 'wx');
  for (let at = 0; at < length; at += noise.byteLength) {
    await file.write(noise, 0, Math.min(noise.byteLength, length - at), at);
  }
  await file.sync();
}
