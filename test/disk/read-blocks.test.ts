import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import {
  type Block,
  compareDisks,
  DEFAULT_BLOCK_SIZE,
  type Disk,
  hashDisk,
  memoryDisk,
  rawDisk,
  readBlocks,
  writeRaw,
} from '../../src/disk/index.ts';
import { type Cell, cellDisk, heldDisk, joinedCells } from '../support/disks.ts';
import { patterned } from '../support/patterned.ts';
import { failingSource, InjectedFailure } from '../support/sources.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';

const UNIT = 10;

/** Lets everything run that can run without a read coming to its end. */
async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await setImmediate();
}

describe('what flows', () => {
  const cells = fc
    .array(
      fc.record({
        kind: fc.constantFrom<Cell['kind']>('data', 'zero', 'absent'),
        length: fc.integer({ min: 1, max: 12 }),
      }),
      { maxLength: 8 },
    )
    .map((runs) =>
      runs.flatMap(({ kind, length }) => Array.from({ length }, (_, i): Cell => ({ kind, value: (i % 255) + 1 }))),
    );

  test('is the data, cut at multiples of the block size and at the ends of extents', async () => {
    await fc.assert(
      fc.asyncProperty(
        cells,
        fc.integer({ min: 1, max: 9 }),
        fc.nat(6),
        fc.boolean(),
        fc.nat(),
        fc.nat(),
        async (list, blockSize, readAhead, emit, a, b) => {
          const offset = a % (list.length + 1);
          const length = b % (list.length - offset + 1);
          const blocks = await toArray(
            readBlocks(cellDisk(list), {
              blockSize,
              readAhead,
              zeroes: emit ? 'emit' : 'skip',
              absent: 'skip',
              offset,
              length,
            }),
          );
          const expected = joinedCells(list, offset, offset + length)
            .filter(({ kind }) => kind === 'data' || (emit && kind === 'zero'))
            .flatMap((extent) => {
              const pieces: Block[] = [];
              for (let at = extent.offset; at < extent.offset + extent.length; at++) {
                const value = extent.kind === 'data' ? list[at]!.value : 0;
                const last = pieces.at(-1);
                if (last === undefined || at % blockSize === 0) pieces.push({ offset: at, data: Uint8Array.of(value) });
                else pieces[pieces.length - 1] = { offset: last.offset, data: Uint8Array.of(...last.data, value) };
              }
              return pieces;
            });
          expect(blocks).toEqual(expected);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('comes in blocks of 2 MiB, if not told otherwise', async () => {
    const blocks = await toArray(readBlocks(rawDisk(memorySource(new Uint8Array(5 * 2 ** 20)))));
    expect(blocks.map(({ offset, data }) => [offset, data.byteLength])).toEqual([
      [0, DEFAULT_BLOCK_SIZE],
      [2 * 2 ** 20, DEFAULT_BLOCK_SIZE],
      [4 * 2 ** 20, 2 ** 20],
    ]);
  });

  test('belongs to the receiver: no two blocks share memory', async () => {
    const blocks = await toArray(readBlocks(memoryDisk(patterned(50)), { blockSize: 10 }));
    expect(new Set(blocks.map(({ data }) => data.buffer)).size).toBe(5);
  });

  test('is nothing from a disk without bytes', async () => {
    expect(await toArray(readBlocks(memoryDisk(new Uint8Array(0))))).toEqual([]);
  });
});

describe('read-ahead', () => {
  test.each([0, 1, 4])('of %i: never more reads under way, and none ahead of a slow consumer', async (readAhead) => {
    const disk = heldDisk(20 * UNIT, UNIT);
    const blocks = readBlocks(disk, { blockSize: UNIT, readAhead });
    const first = blocks.next();
    await settle();
    expect(disk.reads).toHaveLength(readAhead + 1); // the one waited for, and the read-ahead
    disk.reads[0]!.finish();
    expect((await first).value).toEqual({ offset: 0, data: new Uint8Array(UNIT).fill(0) });
    for (const read of disk.reads) read.finish();
    await settle();
    expect(disk.reads).toHaveLength(readAhead + 1); // the consumer works: nothing new
    expect(disk.running).toBe(0);

    const second = blocks.next();
    await settle();
    expect(disk.reads).toHaveLength(readAhead + 2);
    for (const read of disk.reads) read.finish();
    expect((await second).value).toEqual({ offset: UNIT, data: new Uint8Array(UNIT).fill(1) });
    await settle();
    expect(disk.reads).toHaveLength(readAhead + 2);
    await blocks.return();
  });

  test('blocks come in order, whichever read ends first', async () => {
    const disk = heldDisk(3 * UNIT, UNIT);
    const all = toArray(readBlocks(disk, { blockSize: UNIT }));
    await settle();
    for (const read of [...disk.reads].reverse()) {
      read.finish();
      await settle();
    }
    expect((await all).map(({ offset }) => offset)).toEqual([0, UNIT, 2 * UNIT]);
  });

  test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY])('of %d is refused', async (readAhead) => {
    await expect(toArray(readBlocks(memoryDisk(new Uint8Array(1)), { readAhead }))).rejects.toBeInstanceOf(RangeError);
  });

  test.each([0, -1, 0.5, Number.NaN])('a block size of %d is refused', async (blockSize) => {
    await expect(toArray(readBlocks(memoryDisk(new Uint8Array(1)), { blockSize }))).rejects.toBeInstanceOf(RangeError);
  });
});

describe('leaving early', () => {
  test('cancels the reads under way, waits for their end, leaves the extents', async () => {
    const disk = heldDisk(20 * UNIT, UNIT);
    const blocks = readBlocks(disk, { blockSize: UNIT });
    const first = blocks.next();
    await settle();
    disk.reads[0]!.finish();
    await first;
    expect(disk.running).toBe(4);
    await blocks.return();
    expect(disk.running).toBe(0);
    expect(disk.reads.slice(1).every(({ signal }) => signal?.aborted)).toBe(true);
    expect(disk.extentsLeft).toBe(1);
    expect(disk.reads).toHaveLength(5);
  });

  test('waits for a read that is deaf to the signal', async () => {
    const deaf = Promise.withResolvers<void>();
    let ended = false;
    const disk: Disk = {
      ...memoryDisk(patterned(20)),
      async readInto(_target, offset) {
        if (offset === 0) return;
        await deaf.promise;
        ended = true;
      },
    };
    const blocks = readBlocks(disk, { blockSize: UNIT });
    await blocks.next();
    const left = blocks.return().then(() => ended);
    await settle();
    deaf.resolve();
    expect(await left).toBe(true);
  });
});

describe('an abort', () => {
  const reason = new Error('enough');

  test('before the first block reads nothing', async () => {
    const disk = heldDisk(UNIT, UNIT);
    await expect(toArray(readBlocks(disk, { signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
    expect(disk.reads).toEqual([]);
  });

  test('while reads are under way cancels them and rejects with its reason', async () => {
    const stop = new AbortController();
    const disk = heldDisk(20 * UNIT, UNIT);
    const blocks = readBlocks(disk, { blockSize: UNIT, signal: stop.signal });
    const first = blocks.next();
    await settle();
    stop.abort(reason);
    await expect(first).rejects.toBe(reason);
    expect(disk.running).toBe(0);
    expect(await blocks.next()).toEqual({ done: true, value: undefined });
  });

  test.each([3, 30])('while the consumer works on one of %i blocks: no further block', async (count) => {
    const stop = new AbortController();
    const seen: number[] = [];
    const work = async () => {
      for await (const { offset } of readBlocks(memoryDisk(patterned(count * UNIT)), {
        blockSize: UNIT,
        signal: stop.signal,
      })) {
        seen.push(offset);
        await settle(); // all of the read-ahead has come
        stop.abort(reason);
      }
    };
    await expect(work()).rejects.toBe(reason);
    expect(seen).toEqual([0]);
  });
});

describe('a read that fails', () => {
  test.each([1, 2, 7, 10])(
    'as number %i: the blocks before it come, then its error, and the rest is cancelled',
    async (failAt) => {
      const source = failingSource(memorySource(patterned(10 * UNIT)), failAt);
      const seen: number[] = [];
      const work = async () => {
        for await (const { offset } of readBlocks(rawDisk(source), { blockSize: UNIT })) seen.push(offset / UNIT);
      };
      await expect(work()).rejects.toBeInstanceOf(InjectedFailure);
      expect(seen).toEqual(Array.from({ length: failAt - 1 }, (_, i) => i));
      expect(source.reads).toBeLessThanOrEqual(failAt + 4);
    },
  );

  test('is reported before a later one that failed sooner, and no rejection is left over', async () => {
    const disk = heldDisk(3 * UNIT, UNIT);
    const all = toArray(readBlocks(disk, { blockSize: UNIT }));
    const outcome = all.catch((error: unknown) => error);
    await settle();
    disk.reads[2]!.fail(new Error('third'));
    disk.reads[1]!.fail(new Error('second'));
    await settle();
    disk.reads[0]!.finish();
    expect(await outcome).toEqual(new Error('second'));
  });

  test('extents that fail midway: their error, and the reads are cancelled', async () => {
    const held = heldDisk(5 * UNIT, UNIT);
    const failure = new Error('broken');
    const disk: Disk = {
      ...held,
      async *extents() {
        yield { offset: 0, length: 2 * UNIT, kind: 'data' };
        throw failure;
      },
    };
    await expect(toArray(readBlocks(disk, { blockSize: UNIT }))).rejects.toBe(failure);
    expect(held.running).toBe(0);
    expect(held.reads).toHaveLength(2);
  });
});

describe('what a disk calls absent', () => {
  const delta: Cell[] = [
    { kind: 'data', value: 7 },
    { kind: 'absent', value: 0 },
    { kind: 'zero', value: 0 },
  ];

  test('is read, so that a delta without its base is an error and not zeros', async () => {
    const failure = 'byte 1 is absent';
    await expect(toArray(readBlocks(cellDisk(delta)))).rejects.toThrow(failure);
    await expect(hashDisk(cellDisk(delta))).rejects.toThrow(failure);
    await expect(compareDisks(cellDisk(delta), memoryDisk(Uint8Array.of(7, 0, 0)))).rejects.toThrow(failure);
    const path = join(await tempDir(), 'delta.img');
    await expect(writeRaw(cellDisk(delta), path)).rejects.toThrow(failure);
  });

  test('is what the disk has there, where it has zeros', async () => {
    const blocks = await toArray(readBlocks(cellDisk(delta, { absentReadsZero: true })));
    expect(blocks).toEqual([
      { offset: 0, data: Uint8Array.of(7) },
      { offset: 1, data: Uint8Array.of(0) },
    ]);
  });
});
