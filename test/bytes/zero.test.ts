import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isZero, zeroes } from '../../src/bytes/index.ts';

const MIB = 2 ** 20;

describe('isZero', () => {
  test('nothing is all zeros', () => {
    expect(isZero(new Uint8Array(0))).toBe(true);
  });

  test('one byte anywhere is seen, in any view', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.nat(),
        fc.nat(9),
        fc.integer({ min: 1, max: 255 }),
        (size, at, shift, value) => {
          const buffer = new Uint8Array(size + shift + 1).fill(0xff);
          const bytes = buffer.subarray(shift, shift + size).fill(0);
          expect(isZero(bytes)).toBe(true);
          bytes[at % size] = value;
          expect(isZero(bytes)).toBe(false);
        },
      ),
    );
  });

  test.each([0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 3 * MIB + 4])(
    'a byte at %i of 3 MiB and 5 bytes',
    (at) => {
      const bytes = new Uint8Array(3 * MIB + 5);
      expect(isZero(bytes)).toBe(true);
      bytes[at] = 1;
      expect(isZero(bytes)).toBe(false);
    },
  );
});

test.each([0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 3])(
  'zeroes of %i bytes come in pieces of at most 1 MiB',
  (length) => {
    let total = 0;
    for (const piece of zeroes(length)) {
      expect(piece.byteLength).toBeLessThanOrEqual(MIB);
      expect(isZero(piece)).toBe(true);
      total += piece.byteLength;
    }
    expect(total).toBe(length);
  },
);
