import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countSetBits, hasBit, nextBit, runsOfSetBits, setBits } from '../../src/bytes/index.ts';

/** Long runs and single bits, in a view that starts anywhere in its buffer. */
const bitmap = fc
  .tuple(fc.nat(5), fc.array(fc.oneof(fc.constantFrom(0, 0xff), fc.nat(0xff)), { maxLength: 40 }))
  .map(([shift, bytes]) => {
    const buffer = new Uint8Array(bytes.length + shift + 3).fill(0xa5);
    buffer.set(bytes, shift);
    return buffer.subarray(shift, shift + bytes.length);
  });
/** Also fewer bits and more than the bitmap holds. */
const bitCount = fc.nat(360);

function naive(bytes: Uint8Array, bits: number): boolean[] {
  return Array.from({ length: bits }, (_, bit) => ((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0);
}

describe('against the naive reading', () => {
  test('runs of set bits', () => {
    fc.assert(
      fc.property(bitmap, bitCount, fc.nat(370), (bytes, bits, from) => {
        const runs = [...runsOfSetBits(bytes, bits, from)];
        const expected = naive(bytes, bits).flatMap((set, bit) => (set && bit >= from ? [bit] : []));
        expect(runs.flatMap(({ start, count }) => Array.from({ length: count }, (_, i) => start + i))).toEqual(
          expected,
        );
        for (const [i, run] of runs.entries()) {
          expect(run.count).toBeGreaterThan(0);
          if (i > 0) expect(run.start).toBeGreaterThan(runs[i - 1]!.start + runs[i - 1]!.count); // joined where they touch
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('the next bit', () => {
    fc.assert(
      fc.property(bitmap, bitCount, fc.nat(370), fc.boolean(), (bytes, bits, from, set) => {
        const found = naive(bytes, bits).findIndex((bit, index) => index >= from && bit === set);
        expect(nextBit(bytes, from, bits, set)).toBe(found < 0 ? bits : found);
      }),
      { numRuns: 1000 },
    );
  });

  test('counting', () => {
    fc.assert(
      fc.property(bitmap, bitCount, (bytes, bits) => {
        expect(countSetBits(bytes, bits)).toBe(naive(bytes, bits).filter(Boolean).length);
      }),
      { numRuns: 1000 },
    );
  });

  test('asking and setting', () => {
    fc.assert(
      fc.property(bitmap, fc.nat(320), fc.nat(320), (bytes, a, b) => {
        const total = bytes.byteLength * 8;
        const start = Math.min(a, total);
        const count = Math.min(b, total - start);
        const expected = naive(bytes, total).map((set, bit) => set || (bit >= start && bit < start + count));
        setBits(bytes, start, count);
        expect(expected.map((_, bit) => hasBit(bytes, bit))).toEqual(expected);
        expect(hasBit(bytes, total)).toBe(false);
        expect(
          new Uint8Array(bytes.buffer)
            .filter((_, i) => i < bytes.byteOffset || i >= bytes.byteOffset + bytes.byteLength)
            .every((byte) => byte === 0xa5),
        ).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});

test('bits beyond 2^31 are found: a bitmap of 272 MiB', () => {
  const bytes = new Uint8Array(272 * 2 ** 20);
  const bits = bytes.byteLength * 8;
  setBits(bytes, 2 ** 31 + 5, 3);
  setBits(bytes, bits - 1, 1);
  expect([...runsOfSetBits(bytes, bits, 2 ** 31 - 64)]).toEqual([
    { start: 2 ** 31 + 5, count: 3 },
    { start: bits - 1, count: 1 },
  ]);
  expect([2 ** 31 + 4, 2 ** 31 + 5, bits - 1].map((bit) => hasBit(bytes, bit))).toEqual([false, true, true]);
});
