import { assertRange, type ByteSource } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Extent } from './extent.ts';

/** The part of a disk that a call is about. */
export interface RangeOptions extends CallOptions {
  /**
   * In bytes.
   * @defaultValue `0`
   */
  readonly offset?: number | undefined;
  /**
   * In bytes.
   * @defaultValue up to the disk's end
   */
  readonly length?: number | undefined;
}

/** A virtual disk: bytes, and what is known about them before reading. */
export interface Disk extends ByteSource {
  /** Ascending, adjacent, covering exactly the range asked for. */
  extents(options?: RangeOptions): AsyncIterable<Extent>;
}

/** A disk that can be written to. A write that resolved is seen by the next read; only `flush` makes it durable. */
export interface WritableDisk extends Disk {
  /** Writes all of `data` at `offset` (bytes). `data` may be used again once it resolved. */
  write(data: Uint8Array, offset: number, options?: CallOptions): Promise<void>;
  /** Makes `length` bytes from `offset` read as zeros. */
  writeZeroes(offset: number, length: number, options?: CallOptions): Promise<void>;
  /** Makes durable what was written before. */
  flush(options?: CallOptions): Promise<void>;
}

/** What flows: ascending, never overlapping. `data` belongs to whoever received it. */
export interface Block {
  /** In bytes from the start of the disk. */
  readonly offset: number;
  readonly data: Uint8Array;
}

export type BlockStream = AsyncIterable<Block>;

/** The range that the options ask for, checked against the disk's size. */
export function rangeOf(what: string, size: number, options: RangeOptions = {}): { offset: number; end: number } {
  const offset = options.offset ?? 0;
  const length = options.length ?? size - offset;
  assertRange(what, size, offset, length);
  return { offset, end: offset + length };
}
