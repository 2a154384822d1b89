import { constants } from 'node:fs';
import { type FileHandle, open, rm, stat } from 'node:fs/promises';
import { isZero } from '../bytes/index.ts';

/** How storage is given out, in bytes: the block of a VHD. */
export const IMAGE_BLOCK_SIZE = 2 * 1024 * 1024;

/** What is copied up for a write, in bytes: a block's storage is given out whole, its content comes in these. */
export const COPY_SIZE = 64 * 1024;

const PIECES = IMAGE_BLOCK_SIZE / COPY_SIZE; // 32: one bit each in a number
const ALL = 0xffffffff;

/** One file under an image: the blocks it holds, at their place in the virtual disk. */
export interface Layer {
  /** Does the file hold this 2 MiB block? */
  has(block: number): boolean;
  /**
   * How many bytes from `offset` up to the end of its block this layer knows, or leaves to those below. Ends at
   * multiples of 64 KiB.
   */
  run(offset: number): { readonly held: boolean; readonly length: number };
  /** Fills `target` from `offset`, within one block; past the file's end zeros. */
  read(target: Uint8Array, offset: number): Promise<void>;
  /** Indexes of the blocks held, ascending. */
  blocks(): Promise<readonly number[]>;
  /** How many blocks it holds, at most. */
  readonly count: number;
  /** Closes the file, and removes it if the store made it. */
  drop(): Promise<void>;
}

/** A layer that can be written to. */
export interface WritableLayer extends Layer {
  /** Writes within one block, and holds every 64 KiB of it that it touches from then on. */
  write(data: Uint8Array, offset: number): Promise<void>;
}

/** An empty layer whose sparse file comes into being with the first write. */
export function fileLayer(path: string): WritableLayer {
  const held = new Map<number, number>(); // by block, one bit for each 64 KiB
  let opening: Promise<FileHandle> | undefined;
  return {
    has: (block) => held.has(block),
    run(offset) {
      const block = Math.floor(offset / IMAGE_BLOCK_SIZE);
      const left = (block + 1) * IMAGE_BLOCK_SIZE - offset;
      const bits = held.get(block) ?? 0;
      if (bits === 0 || bits === ALL) return { held: bits === ALL, length: left };
      const first = Math.floor((offset % IMAGE_BLOCK_SIZE) / COPY_SIZE);
      let end = first + 1;
      while (end < PIECES && bit(bits, end) === bit(bits, first)) end++;
      return { held: bit(bits, first), length: left - (PIECES - end) * COPY_SIZE };
    },
    async read(target, offset) {
      if (opening === undefined) target.fill(0);
      else await readOrZero(await opening, target, offset);
    },
    async write(data, offset) {
      opening ??= open(path, 'wx+');
      const file = await opening;
      for (let done = 0; done < data.byteLength; ) {
        done += (await file.write(data, done, data.byteLength - done, offset + done)).bytesWritten;
      }
      const block = Math.floor(offset / IMAGE_BLOCK_SIZE);
      held.set(block, ((held.get(block) ?? 0) | touched(offset % IMAGE_BLOCK_SIZE, data.byteLength)) >>> 0);
    },
    blocks: async () => [...held.keys()].sort((a, b) => a - b),
    get count() {
      return held.size;
    },
    async drop() {
      const file = await opening;
      await file?.close();
      if (file !== undefined) await rm(path, { force: true });
    },
  };
}

/** A raw image used where it lies: never written to, never removed. Which blocks are zeros is found out when asked. */
export async function rawFileLayer(path: string): Promise<Layer & { readonly size: number }> {
  const { size } = await stat(path);
  const file = await open(path, constants.O_RDONLY);
  const count = Math.ceil(size / IMAGE_BLOCK_SIZE);
  let scan: Promise<readonly number[]> | undefined;
  return {
    size,
    count,
    has: (block) => block < count,
    run: (offset) => ({
      held: offset < count * IMAGE_BLOCK_SIZE,
      length: IMAGE_BLOCK_SIZE - (offset % IMAGE_BLOCK_SIZE),
    }),
    read: (target, offset) => readOrZero(file, target, offset),
    blocks() {
      scan ??= blocksWithData(file, count);
      return scan;
    },
    drop: () => file.close(),
  };
}

function bit(bits: number, index: number): boolean {
  return ((bits >>> index) & 1) === 1;
}

/** The pieces of a block that a write of `length` bytes at `offset` in it touches. */
function touched(offset: number, length: number): number {
  const first = Math.floor(offset / COPY_SIZE);
  const end = Math.ceil((offset + length) / COPY_SIZE);
  return (2 ** end - 2 ** first) >>> 0;
}

async function blocksWithData(file: FileHandle, count: number): Promise<readonly number[]> {
  const blocks: number[] = [];
  const piece = new Uint8Array(IMAGE_BLOCK_SIZE);
  for (let block = 0; block < count; block++) {
    await readOrZero(file, piece, block * IMAGE_BLOCK_SIZE);
    if (!isZero(piece)) blocks.push(block);
  }
  return blocks;
}

async function readOrZero(file: FileHandle, target: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await file.read(target, done, target.byteLength - done, offset + done);
    if (bytesRead === 0) {
      target.fill(0, done);
      return;
    }
    done += bytesRead;
  }
}
