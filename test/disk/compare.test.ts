import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { compareDisks, type Disk, memoryDisk, rawDisk } from '../../src/disk/index.ts';
import { type Cell, cellDisk, heldDisk } from '../support/disks.ts';
import { patterned } from '../support/patterned.ts';
import { failingSource, InjectedFailure } from '../support/sources.ts';

/** Bytes in which zeros and equal runs are common, so that disks agree for a while. */
const bytes = fc
  .array(fc.record({ value: fc.constantFrom(0, 0, 1, 2), length: fc.integer({ min: 1, max: 20 }) }), { maxLength: 8 })
  .map((runs) => Uint8Array.from(runs.flatMap(({ value, length }) => Array<number>(length).fill(value))));

/** The same bytes, where zeros are told as data, as zeros or as absent, run by run. */
function told(content: Uint8Array, choice: number): Disk {
  let state = choice;
  const cells = Array.from(content, (value, at): Cell => {
    if (at % 5 === 0) state = (state * 1103515245 + 12345) % 2 ** 31;
    const kind = value !== 0 ? 'data' : (['data', 'zero', 'absent'] as const)[Math.floor(state / 7) % 3]!;
    return { kind, value };
  });
  return cellDisk(cells, { absentReadsZero: true });
}

describe('against Buffer.compare', () => {
  const pair = fc.oneof(
    fc.tuple(bytes, bytes),
    bytes.map((one) => [one, one.slice()] as [Uint8Array, Uint8Array]),
    fc.tuple(bytes, fc.nat(), fc.nat(255)).map(([one, at, value]): [Uint8Array, Uint8Array] => {
      const other = one.slice();
      if (other.byteLength > 0) other[at % other.byteLength] = value;
      return [one, other];
    }),
    fc
      .tuple(bytes, fc.nat())
      .map(([one, cut]): [Uint8Array, Uint8Array] => [one, one.slice(0, cut % (one.byteLength + 1))]),
  );

  test('equal or not, where, and why, however the zeros are told', async () => {
    await fc.assert(
      fc.asyncProperty(pair, fc.nat(), fc.nat(), async ([a, b], one, other) => {
        const result = await compareDisks(told(a, one), told(b, other));
        expect(result.equal).toBe(Buffer.compare(a, b) === 0);
        if (result.equal) {
          expect(result.size).toBe(a.byteLength);
          return;
        }
        const shorter = Math.min(a.byteLength, b.byteLength);
        const naive = a.subarray(0, shorter).findIndex((byte, at) => byte !== b[at]);
        expect(result).toEqual({
          equal: false,
          offset: naive < 0 ? shorter : naive,
          reason: naive < 0 ? 'size' : 'content',
          sizes: [a.byteLength, b.byteLength],
        });
      }),
      { numRuns: 1000 },
    );
  });
});

test.each([0, 2 * 2 ** 20 - 1, 2 * 2 ** 20, 5 * 2 ** 20 - 1])('one byte at %i of 5 MiB', async (at) => {
  const a = patterned(5 * 2 ** 20);
  const b = a.slice();
  b[at] = 0;
  const result = await compareDisks(rawDisk(memorySource(a)), memoryDisk(b));
  expect(result).toMatchObject({ equal: false, offset: at, reason: 'content' });
  expect(await compareDisks(rawDisk(memorySource(a)), memoryDisk(a.slice()))).toEqual({
    equal: true,
    size: 5 * 2 ** 20,
  });
});

test('runs that both call zero are not read', async () => {
  const zeros = (): Disk => ({
    ...memoryDisk(new Uint8Array(0)),
    size: 2 ** 50,
    async *extents() {
      yield { offset: 0, length: 2 ** 50, kind: 'zero' };
    },
    readInto: () => expect.fail('read'),
  });
  expect(await compareDisks(zeros(), zeros())).toEqual({ equal: true, size: 2 ** 50 });
});

test('a read that fails on either side rejects, and both are left', async () => {
  const content = patterned(100);
  for (const [a, b] of [
    [1, Infinity],
    [Infinity, 1],
  ] as const) {
    const disks = [a, b].map((failAt) => rawDisk(failingSource(memorySource(content), failAt)));
    await expect(compareDisks(disks[0]!, disks[1]!)).rejects.toBeInstanceOf(InjectedFailure);
  }
});

test('a difference found ends the reads of both disks before it is told', async () => {
  const long = heldDisk(20 * 2 ** 21, 2 ** 21);
  const other = rawDisk(memorySource(new Uint8Array(20 * 2 ** 21).fill(1)));
  const longer = compareDisks(long, other);
  while (long.reads.length < 5) await setImmediate();
  long.reads[0]!.finish();
  expect(await longer).toMatchObject({ equal: false, offset: 0, reason: 'content' });
  expect(long.running).toBe(0);
});

test('an abort rejects with its reason', async () => {
  const reason = new Error('enough');
  const disk = memoryDisk(patterned(100));
  await expect(compareDisks(disk, disk, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
