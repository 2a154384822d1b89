import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { type Disk, type ExtentKind, memoryDisk, overlay } from '../../src/disk/index.ts';
import { type Cell, cellDisk, joinedCells } from '../support/disks.ts';
import { toArray } from '../support/to-array.ts';

const ABSENT: Cell = { kind: 'absent', value: 0 };
const ZERO: Cell = { kind: 'zero', value: 0 };

/** Runs of cells, so that extents are longer than one byte; up to 40 bytes in all, perhaps none. */
const cells = fc
  .array(
    fc.record({
      kind: fc.constantFrom<ExtentKind>('data', 'zero', 'absent', 'absent'),
      length: fc.integer({ min: 1, max: 8 }),
      value: fc.integer({ min: 1, max: 255 }),
    }),
    { maxLength: 7 },
  )
  .map((runs) => runs.flatMap(({ kind, length, value }) => Array.from({ length }, (): Cell => ({ kind, value }))));
const layers = fc.array(cells, { minLength: 1, maxLength: 5 });
const pieceSize = fc.constantFrom(1, 2, 3, Infinity);

/** Byte by byte from the top: the first that says something; where a lower layer has ended there are zeros. */
function naive(stack: readonly (readonly Cell[])[]): Cell[] {
  return Array.from({ length: stack.at(-1)!.length }, (_, at) => {
    for (const layer of [...stack].reverse()) {
      const cell = at < layer.length ? layer[at]! : ZERO;
      if (cell.kind !== 'absent') return cell;
    }
    return ABSENT;
  });
}

function valuesOf(stack: readonly Cell[], from: number, to: number): number[] {
  return stack.slice(from, to).map(({ kind, value }) => (kind === 'data' ? value : 0));
}

function disksOf(stack: readonly (readonly Cell[])[], size = Infinity): Disk[] {
  return stack.map((layer, i) => cellDisk(layer, { pieceSize: size, absentReadsZero: i === 0 }));
}

async function expectSame(disk: Disk, expected: readonly Cell[], from = 0, to = expected.length): Promise<void> {
  expect(disk.size).toBe(expected.length);
  expect(await toArray(disk.extents({ offset: from, length: to - from }))).toEqual(joinedCells(expected, from, to));
  expect([...(await readBytes(disk, from, to - from))]).toEqual(valuesOf(expected, from, to));
}

describe('against the byte-by-byte model', () => {
  test('any layers of any sizes, any range', async () => {
    await fc.assert(
      fc.asyncProperty(layers, pieceSize, fc.nat(), fc.nat(), async (stack, size, a, b) => {
        const expected = naive(stack);
        const from = a % (expected.length + 1);
        const to = from + (b % (expected.length - from + 1));
        const disk = overlay(disksOf(stack, size));
        await expectSame(disk, expected);
        await expectSame(disk, expected, from, to);
      }),
      { numRuns: 1500 },
    );
  });

  test('stacking is associative: stacks of stacks are one stack', async () => {
    const cut = fc.tuple(layers, fc.nat(), fc.nat());
    await fc.assert(
      fc.asyncProperty(cut, async ([stack, a, b]) => {
        const disks = disksOf(stack);
        const from = a % disks.length;
        const to = from + 1 + (b % (disks.length - from));
        const nested = overlay([...disks.slice(0, from), overlay(disks.slice(from, to)), ...disks.slice(to)]);
        await expectSame(nested, naive(stack));
      }),
      { numRuns: 500 },
    );
  });
});

describe('disks that change their size', () => {
  const data = (length: number, value: number) => Array.from({ length }, (): Cell => ({ kind: 'data', value }));
  const absent = (length: number) => Array.from({ length }, () => ABSENT);

  test('grown: the new part is zeros, and known to be', async () => {
    const disk = overlay(disksOf([data(4, 1), absent(8)]));
    expect(await toArray(disk.extents())).toEqual([
      { offset: 0, length: 4, kind: 'data' },
      { offset: 4, length: 4, kind: 'zero' },
    ]);
    expect([...(await readBytes(disk, 0, 8))]).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
  });

  test('shrunk, then grown: what was cut off does not come back', async () => {
    const disk = overlay(disksOf([data(8, 1), absent(3), absent(8)]));
    expect([...(await readBytes(disk, 0, 8))]).toEqual([1, 1, 1, 0, 0, 0, 0, 0]);
  });

  test('shrunk: the top decides the size', async () => {
    const disk = overlay(disksOf([data(8, 1), [...data(1, 2), ...absent(2)]]));
    expect(disk.size).toBe(3);
    expect([...(await readBytes(disk, 0, 3))]).toEqual([2, 1, 1]);
    await expect(readBytes(disk, 3, 1)).rejects.toBeInstanceOf(RangeError);
  });

  test('what no layer says is absent, and the bottom is asked to read it', async () => {
    const strict = overlay([cellDisk(absent(4)), cellDisk(absent(4))]);
    expect(await toArray(strict.extents())).toEqual([{ offset: 0, length: 4, kind: 'absent' }]);
    await expect(readBytes(strict, 0, 1)).rejects.toThrow('byte 0 is absent');
  });
});

test('at least one layer is needed', () => {
  expect(() => overlay([])).toThrow(RangeError);
});

test('known zeros and bytes of other layers are not read', async () => {
  const read: string[] = [];
  const watched = (name: string, disk: Disk): Disk => ({
    ...disk,
    extents: (options) => disk.extents(options),
    readInto: (target, offset, options) => {
      read.push(`${name} ${offset}+${target.byteLength}`);
      return disk.readInto(target, offset, options);
    },
  });
  const bottom = watched('bottom', cellDisk(Array.from({ length: 6 }, (): Cell => ({ kind: 'data', value: 1 }))));
  const top = watched('top', cellDisk([ABSENT, ABSENT, { kind: 'data', value: 2 }, ZERO, ZERO, ABSENT]));
  expect([...(await readBytes(overlay([bottom, top]), 0, 6))]).toEqual([1, 1, 2, 0, 0, 1]);
  expect(read).toEqual(['bottom 0+2', 'top 2+1', 'bottom 5+1']);
});

describe('failures', () => {
  const failure = new Error('broken');

  test('a failed read rejects only when the others have ended: nobody writes to the target afterwards', async () => {
    const slow = Promise.withResolvers<void>();
    let slowEnded = false;
    const bottom: Disk = {
      ...memoryDisk(Uint8Array.of(1, 1)),
      readInto: async () => {
        await slow.promise;
        slowEnded = true;
      },
    };
    const top: Disk = {
      ...cellDisk([ABSENT, { kind: 'data', value: 2 }]),
      readInto: async () => {
        throw failure;
      },
    };
    const read = readBytes(overlay([bottom, top]), 0, 2).then(
      () => expect.fail('it must reject'),
      (error: unknown) => [error, slowEnded],
    );
    for (let i = 0; i < 5; i++) await setImmediate(); // the failure has come; the slow read goes on
    slow.resolve();
    expect(await read).toEqual([failure, true]);
  });

  test('extents that fail reject the read and the walk', async () => {
    const broken: Disk = {
      ...memoryDisk(new Uint8Array(4)),
      // biome-ignore lint/correctness/useYield: it fails before it gives anything
      async *extents() {
        throw failure;
      },
    };
    const disk = overlay([memoryDisk(new Uint8Array(4)), broken]);
    await expect(toArray(disk.extents())).rejects.toBe(failure);
    await expect(readBytes(disk, 0, 4)).rejects.toBe(failure);
  });

  test.each([
    ['end too early', [{ offset: 0, length: 2, kind: 'absent' as const }]],
    ['leave a gap', [{ offset: 2, length: 2, kind: 'absent' as const }]],
  ])('a layer whose extents %s is refused, not guessed', async (_, extents) => {
    const broken: Disk = {
      ...memoryDisk(new Uint8Array(4)),
      async *extents() {
        yield* extents;
      },
    };
    await expect(toArray(overlay([broken]).extents())).rejects.toBeInstanceOf(RangeError);
  });

  test('an abort reaches the layers and ends the walk', async () => {
    const stop = new AbortController();
    const signals: unknown[] = [];
    const inner = memoryDisk(new Uint8Array(4).fill(1));
    const watched: Disk = {
      ...inner,
      readInto: (target, offset, options) => {
        signals.push(options?.signal);
        return inner.readInto(target, offset, options);
      },
    };
    const disk = overlay([watched]);
    await readBytes(disk, 0, 1, { signal: stop.signal });
    expect(signals).toEqual([stop.signal]);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(readBytes(disk, 0, 1, { signal: stop.signal })).rejects.toBe(reason);
    await expect(toArray(disk.extents({ signal: stop.signal }))).rejects.toBe(reason);
  });

  test('an abort ends the walk also where the layers do not look', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const deaf: Disk = {
      ...memoryDisk(new Uint8Array(4)),
      async *extents() {
        for (let at = 0; at < 4; at++) yield { offset: at, length: 1, kind: at % 2 === 0 ? 'data' : 'zero' };
      },
    };
    const seen: number[] = [];
    const walk = async () => {
      for await (const { offset } of overlay([deaf]).extents({ signal: stop.signal })) {
        seen.push(offset);
        stop.abort(reason);
      }
    };
    await expect(walk()).rejects.toBe(reason);
    expect(seen.length).toBeLessThan(4);
  });
});

test('leaving the walk early leaves the walks of the layers', async () => {
  let left = 0;
  const layer: Disk = {
    ...memoryDisk(new Uint8Array(4)),
    async *extents() {
      try {
        for (let at = 0; at < 4; at++) yield { offset: at, length: 1, kind: at % 2 === 0 ? 'absent' : 'zero' };
      } finally {
        left++;
      }
    },
  };
  for await (const _ of overlay([layer, layer]).extents()) break;
  expect(left).toBe(2);
});

test('closing closes every layer once, top first, also when one fails to close', async () => {
  const order: string[] = [];
  const failure = new Error('cannot close');
  const layer = (name: string, error?: Error): Disk => ({
    ...memoryDisk(new Uint8Array(1)),
    async close() {
      order.push(name);
      if (error !== undefined) throw error;
    },
  });
  const disk = overlay([layer('bottom'), layer('middle', failure), layer('top')]);
  await expect(disk.close()).rejects.toBe(failure);
  await expect(disk[Symbol.asyncDispose]()).rejects.toBe(failure);
  expect(order).toEqual(['top', 'middle', 'bottom']);
});
