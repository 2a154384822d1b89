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
  /** The bytes from there on. */
  readonly data: Uint8Array;
}

/** Blocks of a disk as they come: whoever leaves the loop early ends what gives them. */
export type BlockStream = AsyncIterable<Block>;

/** From `offset` on, up to but without `end`; in bytes. */
export interface HalfOpenRange {
  /** The first byte. */
  readonly offset: number;
  /** The first byte behind it. */
  readonly end: number;
}

/**
 * The range that the options ask for, checked against the disk's size.
 *
 * @throws RangeError where it does not lie within the disk.
 */
export function rangeOf(what: string, size: number, options: RangeOptions = {}): HalfOpenRange {
  const offset = options.offset ?? 0;
  const length = options.length ?? size - offset;
  assertRange(what, size, offset, length);
  return { offset, end: offset + length };
}
