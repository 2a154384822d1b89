import { constants } from 'node:fs';
import { type FileHandle, open, rm, stat } from 'node:fs/promises';
import { isZero } from '../bytes/index.ts';

/** How storage is given out, in bytes: the block of a VHD. */
export const IMAGE_BLOCK_SIZE = 2 * 1024 * 1024;

/** One file under an image: the blocks it holds, at their place in the virtual disk. */
export interface Layer {
  /** Does the file hold this 2 MiB block? */
  has(block: number): boolean;
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
  /** Writes within one block, which the layer holds from then on. */
  write(data: Uint8Array, offset: number): Promise<void>;
}

/** An empty layer whose sparse file comes into being with the first write. */
export function fileLayer(path: string): WritableLayer {
  const held = new Set<number>();
  let opening: Promise<FileHandle> | undefined;
  return {
    has: (block) => held.has(block),
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
      held.add(Math.floor(offset / IMAGE_BLOCK_SIZE));
    },
    blocks: async () => [...held].sort((a, b) => a - b),
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
    read: (target, offset) => readOrZero(file, target, offset),
    blocks() {
      scan ??= blocksWithData(file, count);
      return scan;
    },
    drop: () => file.close(),
  };
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
