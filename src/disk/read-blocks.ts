import { memoryRing } from '../bytes/index.ts';
import { anySignal } from '../core/index.ts';
import type { Block, Disk, RangeOptions } from './disk.ts';

/** Where the reads of {@link readBlocks} are cut, in bytes: VHD's usual block. */
export const DEFAULT_BLOCK_SIZE = 2 * 1024 * 1024;

export interface ReadBlocksOptions extends RangeOptions {
  /**
   * Blocks are cut at multiples of this, in bytes, and at the ends of extents.
   * @defaultValue 2 MiB
   */
  readonly blockSize?: number | undefined;
  /**
   * How many reads are under way while the consumer works on a block; memory is bounded by
   * `(readAhead + 1) * blockSize`.
   * @defaultValue `4`
   */
  readonly readAhead?: number | undefined;
  /**
   * Whether runs of zeros are left out (what does not flow is zero) or flow as blocks.
   * @defaultValue `'skip'`
   */
  readonly zeroes?: 'skip' | 'emit' | undefined;
  /**
   * What happens to runs that the disk calls `absent`. `read`: they are read, and the disk gives what it has there, zeros
   * or, as a delta without its base, an error. `skip`: they are left out, as a copy of one layer alone wants it.
   * @defaultValue `'read'`
   */
  readonly absent?: 'read' | 'skip' | undefined;
  /**
   * Uses the memory of a block again once the next one is asked for: much faster, for who is done with each block by
   * then. Otherwise a block belongs to whoever received it.
   * @defaultValue `false`
   */
  readonly reuseMemory?: boolean | undefined;
}

/**
 * The data of a disk as a stream of blocks, ascending. A slow consumer slows the reads: between two blocks only the
 * read-ahead runs. Leaving the loop early, an abort or a failed read cancels the reads under way and waits for their
 * end; blocks before the one that failed are given first.
 */
export async function* readBlocks(disk: Disk, options: ReadBlocksOptions = {}): AsyncGenerator<Block, void> {
  const { readAhead = 4, blockSize = DEFAULT_BLOCK_SIZE, reuseMemory = false, signal } = options;
  if (!Number.isSafeInteger(readAhead) || readAhead < 0) throw new RangeError(`read-ahead ${readAhead} is no count`);
  if (!Number.isSafeInteger(blockSize) || blockSize <= 0) throw new RangeError(`block size ${blockSize} is no size`);
  const stop = new AbortController();
  const linked = anySignal(signal, stop.signal);
  const memory = memoryRing(blockSize, reuseMemory);
  const inFlight: Promise<OwnBlock>[] = [];
  try {
    for await (const { offset, length } of pieces(disk, blockSize, { ...options, signal: linked })) {
      signal?.throwIfAborted();
      const pending = readBlock(disk, offset, memory.take(length), linked);
      pending.catch(() => {}); // not swallowed: awaited below, in order; this keeps Node quiet until then
      inFlight.push(pending);
      if (inFlight.length <= readAhead) continue;
      const block = await inFlight.shift()!;
      yield block;
      memory.give(block.data);
    }
    while (inFlight.length > 0) {
      signal?.throwIfAborted();
      yield await inFlight.shift()!;
    }
  } finally {
    stop.abort();
    await Promise.allSettled(inFlight);
  }
}

interface OwnBlock extends Block {
  readonly data: Uint8Array<ArrayBuffer>;
}

async function readBlock(
  disk: Disk,
  offset: number,
  data: Uint8Array<ArrayBuffer>,
  signal: AbortSignal | undefined,
): Promise<OwnBlock> {
  await disk.readInto(data, offset, { signal });
  return { offset, data };
}

async function* pieces(
  disk: Disk,
  blockSize: number,
  { zeroes = 'skip', absent = 'read', ...range }: ReadBlocksOptions,
): AsyncGenerator<{ offset: number; length: number }, void> {
  for await (const extent of disk.extents(range)) {
    if (extent.kind === 'absent' && absent === 'skip') continue;
    if (extent.kind === 'zero' && zeroes === 'skip') continue;
    const end = extent.offset + extent.length;
    for (let at = extent.offset; at < end; ) {
      const next = Math.min(at - (at % blockSize) + blockSize, end);
      yield { offset: at, length: next - at };
      at = next;
    }
  }
}
