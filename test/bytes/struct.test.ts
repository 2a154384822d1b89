import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ascii, raw, readSize64, size64, struct, u8, u16, u32, u64 } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';

const sample = struct('sample', 36, { a: u8, b: u16, c: u32, d: u64, e: size64, f: ascii(8), g: raw(5) });

test('offsets follow from the order, numbers are big-endian', () => {
  const bytes = sample.encode({
    a: 0x01,
    b: 0x0203,
    c: 0x04050607,
    d: 0x08090a0b0c0d0e0fn,
    e: 0x10111213141516,
    f: 'conectix',
    g: Uint8Array.of(1, 2, 3, 4, 5),
  });
  const numbers = '01 0203 04050607 08090a0b0c0d0e0f 0010111213141516';
  expect(Buffer.from(bytes).toString('hex')).toBe(
    `${numbers.replaceAll(' ', '')}${Buffer.from('conectix').toString('hex')}0102030405`,
  );
});

test('decodes what it encodes', () => {
  const value = fc.record({
    a: fc.nat(0xff),
    b: fc.nat(0xffff),
    c: fc.nat(0xffffffff),
    d: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    e: fc.maxSafeNat(),
    f: fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    g: fc.uint8Array({ minLength: 5, maxLength: 5 }),
  });
  fc.assert(
    fc.property(value, (given) => {
      expect(sample.decode(sample.encode(given))).toEqual(given);
    }),
  );
});

test('reads a view into a larger buffer, and nothing beside it', () => {
  const large = new Uint8Array(100).fill(0xee);
  const value = { a: 1, b: 2, c: 3, d: 4n, e: 5, f: 'abc\0\0\0\0 ', g: new Uint8Array(5) };
  large.set(sample.encode(value), 33);
  const decoded = sample.decode(large.subarray(33, 33 + sample.size));
  expect(decoded).toEqual(value);
  large.fill(0);
  expect(decoded.g).toEqual(new Uint8Array(5));
});

test('raw bytes are copied, not shared', () => {
  const one = struct('one', 1, { bytes: raw(1) });
  const file = Uint8Array.of(7);
  const { bytes } = one.decode(file);
  file[0] = 8;
  expect(bytes[0]).toBe(7);
});

test('fields must cover the size that the format says', () => {
  expect(() => struct('odd', 4, { a: u8, b: u16 })).toThrow('odd: fields cover 3 bytes, the format says 4');
});

test.each([0, 35, 37])('%i bytes instead of 36 are refused', (length) => {
  const work = () => sample.decode(new Uint8Array(length), 512);
  expect(work).toThrow(FormatError);
  expect(work).toThrow(`sample at offset 512: expected 36, got ${length}`);
});

describe('values that do not fit are refused, not wrapped around', () => {
  const good = { a: 0, b: 0, c: 0, d: 0n, e: 0, f: '', g: new Uint8Array(5) };
  test.each([
    ['a', 256],
    ['a', -1],
    ['a', 0.5],
    ['b', 65536],
    ['b', -1],
    ['c', 2 ** 32],
    ['c', -1],
    ['c', Number.NaN],
    ['d', 2n ** 64n],
    ['d', -1n],
    ['e', 2 ** 53],
    ['e', -1],
    ['e', 0.5],
    ['f', '123456789'],
    ['f', 'caf€'],
    ['g', new Uint8Array(4)],
    ['g', new Uint8Array(6)],
  ])('%s: %s', (key, value) => {
    const work = () => sample.encode({ ...good, [key]: value });
    expect(work).toThrow(RangeError);
    expect(work).toThrow(`sample, ${key}: `);
  });

  test('the largest that fit', () => {
    const max = { ...good, a: 255, b: 65535, c: 2 ** 32 - 1, d: 2n ** 64n - 1n, e: 2 ** 53 - 1, f: 'ÿÿÿÿÿÿÿÿ' };
    expect(sample.decode(sample.encode(max))).toEqual(max);
  });
});

describe('64-bit sizes', () => {
  const one = struct('one', 8, { size: size64 });

  test.each([2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])('%s is refused, with its place', (value) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value);
    const failure = expect.objectContaining({
      code: 'BYTES_TOO_LARGE',
      at: { what: '64-bit size', offset: 4096, expected: 'at most 9007199254740991', actual: String(value) },
    });
    expect(() => one.decode(bytes, 4096)).toThrow(failure);
    expect(() => readSize64(new DataView(bytes.buffer), 0, 4096)).toThrow(failure);
  });

  test('up to 2^53 - 1 they are numbers', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        const view = new DataView(new ArrayBuffer(12));
        view.setBigUint64(3, BigInt(value));
        expect(readSize64(view, 3)).toBe(value);
      }),
    );
  });
});
