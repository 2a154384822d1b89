import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Coverage } from '../../src/nbd-protocol/coverage.ts';
import { fitRequestSize, planReads } from '../../src/nbd-protocol/read-plan.ts';
import { checkRequest } from '../../src/nbd-protocol/request-check.ts';

test('a read is cut into aligned requests that together give each byte once', () => {
  const layout = fc
    .record({
      size: fc.integer({ min: 0, max: 5000 }),
      alignment: fc.constantFrom(1, 8, 64, 512),
      multiple: fc.integer({ min: 1, max: 8 }),
      from: fc.nat(),
      to: fc.nat(),
    })
    .map(({ size, alignment, multiple, from, to }) => {
      const [a, b] = [from % (size + 1), to % (size + 1)];
      return { size, alignment, requestSize: alignment * multiple, offset: Math.min(a, b), end: Math.max(a, b) };
    });
  fc.assert(
    fc.property(layout, ({ size, alignment, requestSize, offset, end }) => {
      let at = offset;
      for (const piece of planReads(offset, end - offset, { alignment, requestSize, size })) {
        expect(piece.offset % alignment).toBe(0);
        expect(piece.length % alignment === 0 || piece.offset + piece.length === size).toBe(true);
        expect(piece.length).toBeGreaterThan(0);
        expect(piece.length).toBeLessThanOrEqual(requestSize);
        expect(piece.offset + piece.length).toBeLessThanOrEqual(size);
        expect(piece.offset + piece.skip).toBe(at);
        expect(piece.skip + piece.take).toBeLessThanOrEqual(piece.length);
        expect(piece.at).toBe(at - offset);
        at += piece.take;
      }
      expect(at).toBe(end);
    }),
  );
});

test('the request size stays within what the server announced', () => {
  expect(fitRequestSize(256 * 1024, 512, 32 * 1024 * 1024)).toBe(256 * 1024);
  expect(fitRequestSize(100_000, 4096, 32 * 1024 * 1024)).toBe(98_304);
  expect(fitRequestSize(1024 * 1024, 4096, 65_536)).toBe(65_536);
  expect(fitRequestSize(1, 4096, 65_536)).toBe(4096);
});

test('coverage agrees with a set of bytes', () => {
  const pieces = fc.array(
    fc.record({ offset: fc.integer({ min: -2, max: 40 }), length: fc.integer({ min: 0, max: 12 }) }),
  );
  fc.assert(
    fc.property(pieces, (list) => {
      const coverage = new Coverage(32);
      const bytes = new Set<number>();
      for (const { offset, length } of list) {
        const wanted = Array.from({ length }, (_, index) => offset + index);
        const fits = length > 0 && wanted.every((byte) => byte >= 0 && byte < 32 && !bytes.has(byte));
        expect(coverage.add(offset, length)).toBe(fits);
        if (!fits) return; // the connection ends there
        for (const byte of wanted) bytes.add(byte);
        expect(coverage.complete).toBe(bytes.size === 32);
      }
    }),
    { numRuns: 500 },
  );
});

test('a reply in thousands of pieces is given up', () => {
  const coverage = new Coverage(1_000_000);
  const fitted = Array.from({ length: 10_000 }, (_, index) => coverage.add(2 * index, 1)).filter(Boolean).length;
  expect(fitted).toBe(4096);
});

const READ_WRITE = 0x1 + 0x4 + 0x8 + 0x40 + 0x80 + 0x400;
const READ_ONLY = 0x1 + 0x2 + 0x4 + 0x8 + 0x80;
const header = { high: 0, low: 0, flags: 0, offset: 0, length: 512 };

test.each([
  ['a read', READ_WRITE, { type: 0 }, 0],
  ['a read with DF', READ_WRITE, { type: 0, flags: 4 }, 0],
  ['a read with DF that was not offered', READ_WRITE - 0x80, { type: 0, flags: 4 }, 22],
  ['a read with FUA', READ_WRITE, { type: 0, flags: 1 }, 0],
  ['a read with NO_HOLE', READ_WRITE, { type: 0, flags: 2 }, 22],
  ['a read of nothing', READ_WRITE, { type: 0, length: 0 }, 22],
  ['a read to the end', READ_WRITE, { type: 0, offset: 1024 }, 0],
  ['a read past the end', READ_WRITE, { type: 0, offset: 1025 }, 22],
  ['a read beyond all numbers', READ_WRITE, { type: 0, offset: Number.POSITIVE_INFINITY }, 22],
  ['a write', READ_WRITE, { type: 1 }, 0],
  ['a write past the end', READ_WRITE, { type: 1, offset: 1025 }, 28],
  ['a write to what is read-only', READ_ONLY, { type: 1 }, 1],
  ['a flush', READ_WRITE, { type: 3, length: 0 }, 0],
  ['a flush of a range', READ_WRITE, { type: 3 }, 22],
  ['a trim that was not offered', READ_WRITE, { type: 4 }, 22],
  ['a trim of what is read-only', READ_ONLY, { type: 4 }, 1],
  ['zeroes', READ_WRITE, { type: 6, flags: 2 }, 0],
  ['fast zeroes, not offered', READ_WRITE, { type: 6, flags: 0x10 }, 22],
  ['a status without a context', READ_WRITE, { type: 7 }, 22],
  ['a command nobody knows', READ_WRITE, { type: 99 }, 22],
])('%s is answered rightly', (_, flags, request, errno) => {
  expect(checkRequest({ ...header, ...request }, { size: 1536, flags, hasContext: false })).toBe(errno);
});
