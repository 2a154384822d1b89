import { type ByteSource, nextBit, readBytes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { SECTOR_SIZE } from './constants.ts';
import type { VhdBlocks } from './inspect.ts';

/** A block's sector bitmap; `'full'` where every sector within the disk is set. */
export type SectorBitmap = Uint8Array | 'full';

/** How many bytes of bitmaps are kept; full ones count as one sector, too. */
const MOST_CACHED = 1024 * 1024;
const READS_AT_ONCE = 16;

/** Reads sector bitmaps and keeps the last used ones, at most 1 MiB of them. */
export class BitmapCache {
  readonly #source: ByteSource;
  readonly #blocks: VhdBlocks;
  readonly #size: number;
  readonly #capacity: number;
  readonly #cached = new Map<number, SectorBitmap>();

  constructor(source: ByteSource, blocks: VhdBlocks, size: number) {
    this.#source = source;
    this.#blocks = blocks;
    this.#size = size;
    this.#capacity = Math.max(Math.floor(MOST_CACHED / blocks.bitmapSize), 2 * READS_AT_ONCE);
  }

  /** The bitmap of a block that is there; at once where it is at hand. */
  get(index: number, options?: CallOptions): SectorBitmap | Promise<SectorBitmap> {
    const cached = this.#cached.get(index);
    return cached === undefined ? this.#fetch(index, options) : this.#keep(index, cached);
  }

  async #fetch(index: number, options?: CallOptions): Promise<SectorBitmap> {
    return this.#keep(index, await this.#read(index, options));
  }

  #keep(index: number, bitmap: SectorBitmap): SectorBitmap {
    this.#cached.delete(index); // the last used one moves to the end
    this.#cached.set(index, bitmap);
    if (this.#cached.size > this.#capacity) this.#cached.delete(this.#cached.keys().next().value!);
    return bitmap;
  }

  /** Reads the bitmaps of the first few of these blocks side by side, unless that of the very first is at hand. */
  async prefetch(indexes: Iterable<number>, options?: CallOptions): Promise<void> {
    const wanted: number[] = [];
    for (const index of indexes) {
      if (wanted.length === 0 && this.#cached.has(index)) return;
      if (wanted.push(index) === READS_AT_ONCE) break;
    }
    if (wanted.length > 1) await Promise.all(wanted.map((index) => this.get(index, options)));
  }

  async #read(index: number, options?: CallOptions): Promise<SectorBitmap> {
    const { table, bitmapSize, header } = this.#blocks;
    const bitmap = await readBytes(this.#source, table[index]! * SECTOR_SIZE, bitmapSize, options);
    const inside = Math.min(header.blockSize, this.#size - index * header.blockSize) / SECTOR_SIZE;
    return nextBit(bitmap, 0, inside, false) === inside ? 'full' : bitmap;
  }
}
