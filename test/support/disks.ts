import { assertRange } from '../../src/bytes/index.ts';
import type { CallOptions } from '../../src/core/index.ts';
import { type Disk, type Extent, type ExtentKind, type RangeOptions, rangeOf } from '../../src/disk/index.ts';

/** One byte of a naive disk: what its layer knows, and its value where it is data. */
export interface Cell {
  readonly kind: ExtentKind;
  readonly value: number;
}

/**
 * A disk made of cells, one for each byte, the naive way. Extents are told in pieces of at most `pieceSize` bytes, so
 * neighbours may be of one kind. Reading an absent byte fails unless `absentReadsZero`.
 */
export function cellDisk(
  cells: readonly Cell[],
  { pieceSize = Infinity, absentReadsZero = false }: { pieceSize?: number; absentReadsZero?: boolean } = {},
): Disk & { closed: boolean } {
  const disk = {
    size: cells.length,
    closed: false,
    async *extents(options: RangeOptions = {}): AsyncGenerator<Extent, void> {
      const { offset, end } = rangeOf('cells', cells.length, options);
      for (const extent of joinedCells(cells, offset, end)) {
        for (let at = 0; at < extent.length; at += pieceSize) {
          options.signal?.throwIfAborted();
          yield { ...extent, offset: extent.offset + at, length: Math.min(pieceSize, extent.length - at) };
        }
      }
    },
    async readInto(target: Uint8Array, offset: number, { signal }: CallOptions = {}) {
      signal?.throwIfAborted();
      assertRange('cells', cells.length, offset, target.byteLength);
      for (let i = 0; i < target.byteLength; i++) {
        const { kind, value } = cells[offset + i]!;
        if (kind === 'absent' && !absentReadsZero) throw new Error(`byte ${offset + i} is absent`);
        target[i] = kind === 'data' ? value : 0;
      }
    },
    async close() {
      disk.closed = true;
    },
    [Symbol.asyncDispose]: () => disk.close(),
  };
  return disk;
}

/** The extents that cells `from` to `to` make, neighbours of one kind joined. */
export function joinedCells(cells: readonly Cell[], from: number, to: number): Extent[] {
  const extents: { offset: number; length: number; kind: ExtentKind }[] = [];
  for (let at = from; at < to; at++) {
    const { kind } = cells[at]!;
    const last = extents.at(-1);
    if (last?.kind === kind) last.length++;
    else extents.push({ offset: at, length: 1, kind });
  }
  return extents;
}

/** A read that the test lets go on, or fail. */
export interface HeldRead {
  readonly offset: number;
  readonly length: number;
  readonly signal: AbortSignal | undefined;
  finish(): void;
  fail(error: unknown): void;
}

export interface HeldDisk extends Disk {
  /** Every read that was asked for, in order. */
  readonly reads: readonly HeldRead[];
  /** How many are neither finished nor failed. */
  readonly running: number;
  /** How often extents were left before their end. */
  readonly extentsLeft: number;
}

/**
 * A disk of `size` bytes, all data, whose reads wait until the test finishes them; an abort fails them with its reason.
 * Byte `i` of a read holds `offset / unit`.
 */
export function heldDisk(size: number, unit: number): HeldDisk {
  const reads: HeldRead[] = [];
  let running = 0;
  let extentsLeft = 0;
  return {
    size,
    reads,
    get running() {
      return running;
    },
    get extentsLeft() {
      return extentsLeft;
    },
    async *extents(options = {}) {
      const { offset, end } = rangeOf('held disk', size, options);
      let whole = false;
      try {
        for (let at = offset; at < end; at += unit) {
          yield { offset: at, length: Math.min(unit, end - at), kind: 'data' as const };
        }
        whole = true;
      } finally {
        if (!whole) extentsLeft++;
      }
    },
    async readInto(target, offset, { signal } = {}) {
      signal?.throwIfAborted();
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      reads.push({ offset, length: target.byteLength, signal, finish: resolve, fail: reject });
      const onAbort = () => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      running++;
      try {
        await promise;
        target.fill(offset / unit);
      } finally {
        running--;
        signal?.removeEventListener('abort', onAbort);
      }
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
}
