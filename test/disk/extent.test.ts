import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  countExtentBytes,
  cutExtent,
  type Extent,
  type ExtentKind,
  joinExtents,
  rangeOf,
} from '../../src/disk/index.ts';
import { toArray } from '../support/to-array.ts';

const kinds = fc.constantFrom<ExtentKind>('data', 'zero', 'absent');

/** Ascending extents with gaps and empty ones among them. */
const extents = fc
  .array(fc.record({ gap: fc.constantFrom(0, 0, 0, 5), length: fc.nat(6), kind: kinds }))
  .map((parts) => {
    let at = 0;
    return parts.map(({ gap, length, kind }): Extent => {
      const offset = at + gap;
      at = offset + length;
      return { offset, length, kind };
    });
  });

function bytesOf(list: readonly Extent[]): [number, ExtentKind][] {
  return list.flatMap(({ offset, length, kind }) =>
    Array.from({ length }, (_, i): [number, ExtentKind] => [offset + i, kind]),
  );
}

describe('joinExtents', () => {
  test('says the same about every byte, in as few extents as can be', async () => {
    await fc.assert(
      fc.asyncProperty(extents, async (list) => {
        const joined = await toArray(joinExtents(list));
        expect(bytesOf(joined)).toEqual(bytesOf(list));
        for (const [i, { offset, length, kind }] of joined.entries()) {
          expect(length).toBeGreaterThan(0);
          const next = joined[i + 1];
          expect(next?.offset === offset + length && next.kind === kind).toBe(false);
        }
      }),
    );
  });

  test('leaving early closes what it reads from', async () => {
    let closed = false;
    const endless = async function* (): AsyncGenerator<Extent> {
      try {
        for (let at = 0; ; at++) yield { offset: at, length: 1, kind: at % 2 === 0 ? 'data' : 'zero' };
      } finally {
        closed = true;
      }
    };
    for await (const extent of joinExtents(endless())) {
      expect(extent).toEqual({ offset: 0, length: 1, kind: 'data' });
      break;
    }
    expect(closed).toBe(true);
  });
});

test('cutExtent keeps the bytes within the range', () => {
  fc.assert(
    fc.property(fc.nat(20), fc.nat(20), fc.nat(30), fc.nat(30), kinds, (offset, length, from, to, kind) => {
      const extent = { offset, length, kind };
      const cut = cutExtent(extent, from, to);
      expect(cut === undefined ? [] : bytesOf([cut])).toEqual(
        bytesOf([extent]).filter(([at]) => at >= from && at < to),
      );
      expect(cut?.length).not.toBe(0);
    }),
  );
});

test('countExtentBytes counts one kind', async () => {
  await fc.assert(
    fc.asyncProperty(extents, kinds, async (list, kind) => {
      expect(await countExtentBytes(list, kind)).toBe(bytesOf(list).filter(([, each]) => each === kind).length);
    }),
  );
});

describe('rangeOf', () => {
  test('is the whole disk unless told', () => {
    expect(rangeOf('disk', 100)).toEqual({ offset: 0, end: 100 });
    expect(rangeOf('disk', 100, { offset: 40 })).toEqual({ offset: 40, end: 100 });
    expect(rangeOf('disk', 100, { length: 40 })).toEqual({ offset: 0, end: 40 });
    expect(rangeOf('disk', 100, { offset: 100 })).toEqual({ offset: 100, end: 100 });
  });

  test.each([{ offset: 101 }, { offset: -1 }, { offset: 50, length: 51 }, { length: -1 }, { length: 0.5 }])(
    'refuses %o of 100 bytes',
    (options) => {
      expect(() => rangeOf('disk', 100, options)).toThrow(RangeError);
    },
  );
});
