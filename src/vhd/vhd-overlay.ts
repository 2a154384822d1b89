import { assertRange } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import {
  type Disk,
  type Extent,
  type ExtentKind,
  joinExtents,
  overlay,
  type RangeOptions,
  rangeOf,
} from '../disk/index.ts';
import { type BlockAccess, type BlockState, markedRuns, type Run } from './block-access.ts';
import { blocksOf } from './vhd-reader.ts';

/** A run of the stack: what it is, and which layer says so. */
interface Owned extends Run {
  readonly kind: ExtentKind;
  /** Index of the layer, bottom first; -1: none does. */
  readonly layer: number;
}

/**
 * Stacks layers into one disk, bottom first, as `overlay` does. Where all of them are VHDs with blocks of one size, who
 * owns which sectors is found in their tables and bitmaps, block by block, and each run is read straight from its file:
 * many times faster where the layers hold small runs. Any other stack is a plain `overlay`.
 */
export function overlayVhds(layers: readonly Disk[]): Disk {
  const stack = layers.flatMap((layer) => blocksOf(layer) ?? []);
  const blockSize = stack[0]?.blockSize;
  const plain = overlay(layers);
  if (stack.length < 2 || stack.length < layers.length) return plain;
  if (stack.some((blocks) => blocks.blockSize !== blockSize)) return plain;
  return { ...plain, ...stackedAccess(stack, layers[0]!, plain.size) };
}

function stackedAccess(stack: readonly BlockAccess[], bottom: Disk, size: number): Pick<Disk, 'extents' | 'readInto'> {
  const { blockSize } = stack[0]!;

  /** What each layer has of a block; at once where all bitmaps are at hand. */
  function statesOf(index: number, options: CallOptions): BlockState[] | Promise<BlockState[]> {
    const states = stack.map((blocks) => (index * blockSize < blocks.size ? blocks.state(index, options) : 'none'));
    return states.some((state) => state instanceof Promise) ? Promise.all(states) : (states as BlockState[]);
  }

  async function* extents(options: RangeOptions = {}): AsyncGenerator<Extent, void> {
    const { offset, end } = rangeOf('overlay', size, options);
    for (let at = offset; at < end; ) {
      options.signal?.throwIfAborted();
      const index = Math.floor(at / blockSize);
      const to = Math.min((index + 1) * blockSize, end);
      if (stack.every((blocks) => !blocks.has(index))) {
        const next = Math.min(nextPresent(stack, index, end) * blockSize, end);
        yield* emptyExtents(stack, at, next);
        at = next;
        continue;
      }
      await Promise.all(
        stack.map((blocks) => blocks.has(index) && blocks.prefetch(index, Math.min(end, blocks.size), options)),
      );
      const runs = ownersOf(stack, await statesOf(index, options), index * blockSize, { from: at, to });
      yield* ascending(runs);
      at = to;
    }
  }

  async function readInto(target: Uint8Array, offset: number, options: CallOptions = {}): Promise<void> {
    assertRange('overlay', size, offset, target.byteLength);
    const end = offset + target.byteLength;
    const reads: Promise<void>[] = [];
    try {
      for (let at = offset; at < end; ) {
        const index = Math.floor(at / blockSize);
        const to = Math.min((index + 1) * blockSize, end);
        const found = statesOf(index, options);
        const states = found instanceof Promise ? await found : found;
        for (const run of ownersOf(stack, states, index * blockSize, { from: at, to })) {
          const piece = target.subarray(run.from - offset, run.to - offset);
          if (run.kind === 'zero') piece.fill(0);
          else reads.push(readRun(run, piece, options));
        }
        at = to;
      }
      await Promise.all(reads);
    } finally {
      await Promise.allSettled(reads); // nobody writes to `target` once this call has settled
    }
  }

  /** What no layer has, the bottom one refuses in its own words. */
  function readRun({ layer, from }: Owned, piece: Uint8Array, options: CallOptions): Promise<void> {
    const owner = stack[layer];
    const read =
      owner === undefined
        ? bottom.readInto(piece, from, options)
        : owner.source.readInto(piece, owner.placeOf(from), options);
    read.catch(() => {}); // not swallowed: awaited by `readInto`
    return read;
  }

  return { extents: (options = {}) => joinExtents(extents(options)), readInto };
}

/** The first block from `index` on that any layer has, or the one behind `end`. */
function nextPresent(stack: readonly BlockAccess[], index: number, end: number): number {
  return Math.min(...stack.map((blocks) => blocks.nextPresent(index, end)));
}

/** A range of which no layer has any block: zeros from where a layer ends, or where the lowest one says so. */
function* emptyExtents(stack: readonly BlockAccess[], from: number, to: number): Generator<Extent, void> {
  const runs = ownersOf(
    stack,
    stack.map(() => 'none'),
    from,
    { from, to },
  );
  yield* ascending(runs);
}

/** Runs as extents, ascending, neighbours of one kind as one. */
function* ascending(runs: Owned[]): Generator<Extent, void> {
  runs.sort((a, b) => a.from - b.from);
  for (let i = 0; i < runs.length; ) {
    const { from, kind } = runs[i]!;
    let to = from;
    while (i < runs.length && runs[i]!.kind === kind && runs[i]!.from === to) to = runs[i++]!.to;
    yield { offset: from, length: to - from, kind };
  }
}

/** Who owns what of `range`, which lies within one block that starts at `start`, or in blocks that nobody has. */
function ownersOf(stack: readonly BlockAccess[], states: readonly BlockState[], start: number, range: Run): Owned[] {
  const owned: Owned[] = [];
  let open: Run[] = [range];
  for (let layer = stack.length - 1; layer >= 0 && open.length > 0; layer--) {
    const { size, hole } = stack[layer]!;
    const state = states[layer]!;
    const below: Run[] = [];
    const leave = (from: number, to: number) => {
      if (from >= to) return;
      if (hole === 'zero') owned.push({ from, to, kind: 'zero', layer });
      else below.push({ from, to });
    };
    for (const { from, to: end } of open) {
      if (end > size) owned.push({ from: Math.max(from, size), to: end, kind: 'zero', layer }); // behind a layer's end
      const to = Math.min(end, size);
      if (from >= to) continue;
      if (state === 'none') leave(from, to);
      else if (state === 'full') owned.push({ from, to, kind: 'data', layer });
      else {
        let at = from;
        for (const run of markedRuns(state, start, { from, to })) {
          leave(at, run.from);
          owned.push({ ...run, kind: 'data', layer });
          at = run.to;
        }
        leave(at, to);
      }
    }
    open = below;
  }
  for (const run of open) owned.push({ ...run, kind: 'absent', layer: -1 });
  return owned;
}
