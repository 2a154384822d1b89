import { type ByteSource, nextBit } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { BitmapCache, type SectorBitmap } from './bitmap-cache.ts';
import { ABSENT, SECTOR_SIZE } from './constants.ts';
import type { VhdStructure } from './inspect.ts';

/** A run of a disk, in bytes: `[from, to)`. */
export interface Run {
  readonly from: number;
  readonly to: number;
}

/** What one block has: nothing, every sector, or those that its bitmap marks. */
export type BlockState = SectorBitmap | 'none';

/** The blocks of a dynamic or differencing VHD: where each lies, and which of its sectors are there. */
export class BlockAccess {
  readonly source: ByteSource;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Of a block's data, in bytes. */
  readonly blockSize: number;
  /** What a sector is that is not there. */
  readonly hole: 'zero' | 'absent';
  readonly #table: Uint32Array;
  readonly #bitmapSize: number;
  readonly #bitmaps: BitmapCache;

  constructor(
    source: ByteSource,
    { kind, size, blocks }: VhdStructure & { blocks: NonNullable<VhdStructure['blocks']> },
  ) {
    this.source = source;
    this.size = size;
    this.blockSize = blocks.header.blockSize;
    this.hole = kind === 'dynamic' ? 'zero' : 'absent';
    this.#table = blocks.table;
    this.#bitmapSize = blocks.bitmapSize;
    this.#bitmaps = new BitmapCache(source, blocks, size);
  }

  has(index: number): boolean {
    return this.#table[index] !== ABSENT;
  }

  /** The first block from `index` on that is there, or the first that does not start before `end`. */
  nextPresent(index: number, end: number): number {
    let next = index;
    while (next * this.blockSize < end && !this.has(next)) next++;
    return next;
  }

  /** What block `index` has; at once where its bitmap is at hand. */
  state(index: number, options: CallOptions): BlockState | Promise<BlockState> {
    return this.has(index) ? this.#bitmaps.get(index, options) : 'none';
  }

  /** Reads the bitmaps of the next few blocks from `index` on that start before `end`, unless the first is at hand. */
  prefetch(index: number, end: number, options: CallOptions): Promise<void> {
    return this.#bitmaps.prefetch(this.#presentFrom(index, end), options);
  }

  /** Where the byte at `offset` of the disk lies in the file; its block must be there. */
  placeOf(offset: number): number {
    const index = Math.floor(offset / this.blockSize);
    return this.#table[index]! * SECTOR_SIZE + this.#bitmapSize + (offset - index * this.blockSize);
  }

  *#presentFrom(index: number, end: number): Generator<number, void> {
    for (let i = index; i * this.blockSize < end; i++) if (this.has(i)) yield i;
  }
}

/** The runs within `[from, to)` that a bitmap marks; it belongs to the block that starts at `start`. */
export function* markedRuns(bitmap: Uint8Array, start: number, { from, to }: Run): Generator<Run, void> {
  const end = Math.ceil((to - start) / SECTOR_SIZE);
  for (let bit = Math.floor((from - start) / SECTOR_SIZE); ; ) {
    bit = nextBit(bitmap, bit, end, true);
    if (bit >= end) return;
    const clear = nextBit(bitmap, bit, end, false);
    yield { from: Math.max(start + bit * SECTOR_SIZE, from), to: Math.min(start + clear * SECTOR_SIZE, to) };
    bit = clear;
  }
}
