import { memoryRing, setBits } from '../bytes/index.ts';
import { anySignal, type CallOptions, FormatError } from '../core/index.ts';
import type { BlockStream, Disk, Extent } from '../disk/index.ts';
import { BITMAP_SIZE, SECTOR_SIZE, STRIDE, VHD_BLOCK_SIZE } from './constants.ts';
import type { ResolvedIdentity } from './vhd-plan.ts';

/** A block as it lies in the file. */
export interface VhdBlock {
  readonly index: number;
  /** Bitmap, then data: 512 bytes and 2 MiB. */
  readonly bytes: Uint8Array;
}

export interface VhdBlocksOptions extends CallOptions {
  /**
   * How many blocks are being read while the consumer works on one; memory is about `(readAhead + 2) * 2 MiB`.
   * @defaultValue `4`
   */
  readonly readAhead?: number | undefined;
  /**
   * Uses the memory of a chunk again once the next one is asked for: much faster, for who is done with each chunk by
   * then. Otherwise a chunk belongs to whoever received it.
   * @defaultValue `false`
   */
  readonly reuseMemory?: boolean | undefined;
  /**
   * Called with each block's place on the disk and its data as they are stored, before they are; a sector that is the
   * parent's is zeros there. The data is the callee's until the call has returned, and the block waits until it resolves.
   * @defaultValue nobody is told
   */
  readonly onBlock?: ((offset: number, data: Uint8Array) => Promise<void>) | undefined;
}

type Target = Pick<ResolvedIdentity, 'kind' | 'size'>;

/**
 * Indexes of the blocks that a VHD of this disk needs, ascending: in a dynamic one those with data, in a differencing
 * one also those with zeros, which have to cover what the parent holds.
 *
 * @throws FormatError `VHD_PARENT_NEEDED` where the disk says of a part that only a lower layer knows it and the VHD is
 * to be dynamic: leaving it out would claim zeros.
 */
export async function findVhdBlocks(disk: Disk, { kind }: Target, options: CallOptions = {}): Promise<number[]> {
  const indexes: number[] = [];
  let next = 0;
  for await (const extent of disk.extents({ signal: options.signal })) {
    options.signal?.throwIfAborted();
    if (extent.kind === 'absent' && kind === 'dynamic') throw absentExtent(extent);
    if (extent.length === 0 || extent.kind === 'absent' || (extent.kind === 'zero' && kind === 'dynamic')) continue;
    const last = Math.floor((extent.offset + extent.length - 1) / VHD_BLOCK_SIZE);
    for (next = Math.max(next, Math.floor(extent.offset / VHD_BLOCK_SIZE)); next <= last; next++) indexes.push(next);
  }
  return indexes;
}

/** Reads the named blocks of a disk, in the order named, with read-ahead. */
export async function* readVhdBlocks(
  disk: Disk,
  target: Target,
  indexes: Iterable<number>,
  { readAhead = 4, reuseMemory = false, signal }: VhdBlocksOptions = {},
): AsyncGenerator<VhdBlock, void> {
  const stop = new AbortController();
  const linked = anySignal(signal, stop.signal);
  const memory = memoryRing(STRIDE, reuseMemory);
  const inFlight: Promise<EmptyBlock>[] = [];
  try {
    for (const index of indexes) {
      signal?.throwIfAborted();
      const pending = readVhdBlock(disk, target, cleanedBlock(target, index, memory.take(STRIDE)), { signal: linked });
      pending.catch(() => {}); // not swallowed: awaited below, in order; this keeps Node quiet until then
      inFlight.push(pending);
      if (inFlight.length <= readAhead) continue;
      const block = await inFlight.shift()!;
      yield block;
      memory.give(block.bytes);
    }
    while (inFlight.length > 0) yield await inFlight.shift()!;
  } finally {
    stop.abort();
    await Promise.allSettled(inFlight);
  }
}

async function readVhdBlock(disk: Disk, target: Target, block: EmptyBlock, options: CallOptions): Promise<EmptyBlock> {
  const { offset, bitmap, data } = block;
  if (target.kind === 'dynamic') {
    await disk.readInto(data, offset, options);
    return block;
  }
  for await (const extent of disk.extents({ ...options, offset, length: data.byteLength })) {
    if (extent.kind === 'absent' || extent.length === 0) continue;
    const { from, to } = widen(extent);
    setBits(bitmap, (from - offset) / SECTOR_SIZE, (to - from) / SECTOR_SIZE);
    for (const read of readsOf(extent)) {
      await disk.readInto(data.subarray(read.from - offset, read.to - offset), read.from, options);
    }
  }
  return block;
}

/**
 * Sorts a stream of blocks of any size into VHD blocks, one at a time. In a dynamic VHD what does not arrive is zero; in
 * a differencing one the bitmap follows what arrives, which must then be whole sectors.
 *
 * @throws FormatError `VHD_STREAM_ORDER` where a block starts before the end of the one before it, or ends outside the
 * disk; `VHD_STREAM_UNALIGNED` for parts of sectors in a differencing VHD.
 */
export async function* assembleVhdBlocks(
  blocks: BlockStream,
  target: Target,
  { signal }: CallOptions = {},
): AsyncGenerator<VhdBlock, void> {
  let current: EmptyBlock | undefined;
  let end = 0;
  for await (const { offset, data } of blocks) {
    signal?.throwIfAborted();
    checkArrival(offset, data.byteLength, end, target);
    end = offset + data.byteLength;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / VHD_BLOCK_SIZE);
      if (index !== current?.index) {
        if (current !== undefined) yield current;
        current = emptyBlock(target, index);
      }
      const next = Math.min(end, (index + 1) * VHD_BLOCK_SIZE);
      current.data.set(data.subarray(at - offset, next - offset), at - current.offset);
      if (target.kind === 'differencing') {
        setBits(current.bitmap, (at - current.offset) / SECTOR_SIZE, (next - at) / SECTOR_SIZE);
      }
      at = next;
    }
  }
  if (current !== undefined) yield current;
}

/** Tells of each block that passes. */
export async function* tellBlocks(
  blocks: AsyncIterable<VhdBlock>,
  { size }: Pick<ResolvedIdentity, 'size'>,
  onBlock: NonNullable<VhdBlocksOptions['onBlock']>,
): AsyncGenerator<VhdBlock, void> {
  for await (const block of blocks) {
    await onBlock(block.index * VHD_BLOCK_SIZE, dataOf(block, size));
    yield block;
  }
}

/** A block's data without what lies beyond the disk's end. */
export function dataOf({ index, bytes }: VhdBlock, size: number): Uint8Array {
  return bytes.subarray(BITMAP_SIZE, BITMAP_SIZE + Math.min(VHD_BLOCK_SIZE, size - index * VHD_BLOCK_SIZE));
}

interface EmptyBlock extends VhdBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of the block on the disk. */
  readonly offset: number;
  readonly bitmap: Uint8Array;
  /** Without what lies beyond the disk's end. */
  readonly data: Uint8Array;
}

/**
 * A block of zeros. In a dynamic VHD its bitmap is all ones, the one form that every reader understands; the bits of
 * sectors beyond the disk's end stay clear, because hosts write what is set.
 */
export function emptyBlock({ kind, size }: Target, index: number, bytes = new Uint8Array(STRIDE)): EmptyBlock {
  const offset = index * VHD_BLOCK_SIZE;
  const length = Math.min(VHD_BLOCK_SIZE, size - offset);
  const bitmap = bytes.subarray(0, BITMAP_SIZE);
  if (kind === 'dynamic') setBits(bitmap, 0, length / SECTOR_SIZE);
  return { index, bytes, offset, bitmap, data: bytes.subarray(BITMAP_SIZE, BITMAP_SIZE + length) };
}

/** The same in memory that was used before; the data of a dynamic one is left as it was, since all of it is to be read. */
function cleanedBlock(target: Target, index: number, bytes: Uint8Array<ArrayBuffer>): EmptyBlock {
  const dataEnd = BITMAP_SIZE + Math.min(VHD_BLOCK_SIZE, target.size - index * VHD_BLOCK_SIZE);
  if (target.kind === 'dynamic') bytes.fill(0, 0, BITMAP_SIZE).fill(0, dataEnd);
  else bytes.fill(0);
  return emptyBlock(target, index, bytes);
}

interface Range {
  readonly from: number;
  readonly to: number;
}

function widen({ offset, length }: Extent): Range {
  return { from: sectorFloor(offset), to: sectorFloor(offset + length + SECTOR_SIZE - 1) };
}

/** What must be read of an extent: all of its data; of zeros only the sectors that they share with something else. */
function readsOf(extent: Extent): Range[] {
  const whole = widen(extent);
  if (extent.kind === 'data') return [whole];
  const reads: Range[] = [];
  if (extent.offset !== whole.from) reads.push({ from: whole.from, to: whole.from + SECTOR_SIZE });
  if (extent.offset + extent.length !== whole.to) reads.push({ from: whole.to - SECTOR_SIZE, to: whole.to });
  return reads;
}

function sectorFloor(offset: number): number {
  return offset - (offset % SECTOR_SIZE);
}

function checkArrival(offset: number, length: number, end: number, { kind, size }: Target): void {
  const actual = `${length} bytes at ${offset}`;
  if (offset < end || offset + length > size) {
    const expected = `a block between ${end} and the disk's end at ${size}`;
    throw new FormatError('VHD_STREAM_ORDER', { what: 'block stream', offset: end, expected, actual });
  }
  if (kind === 'differencing' && (offset % SECTOR_SIZE !== 0 || length % SECTOR_SIZE !== 0)) {
    throw new FormatError('VHD_STREAM_UNALIGNED', { what: 'block stream', offset, expected: 'whole sectors', actual });
  }
}

function absentExtent({ offset, length }: Extent): FormatError {
  return new FormatError('VHD_PARENT_NEEDED', {
    what: 'disk for a dynamic VHD: range',
    offset,
    expected: 'data or zeros',
    actual: `${length} bytes that only a lower layer knows`,
  });
}
