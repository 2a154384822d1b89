import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatBytes, formatDuration, table } from '../../src/console/index.ts';

test.each([
  [0, '0 B'],
  [1, '1 B'],
  [1023, '1023 B'],
  [1023.5, '1.0 KiB'],
  [1024, '1.0 KiB'],
  [1536, '1.5 KiB'],
  [99.94 * 1024, '99.9 KiB'],
  [99.96 * 1024, '100 KiB'],
  [2 ** 20 - 1, '1.0 MiB'],
  [2040 * 2 ** 30, '2.0 TiB'],
  [2 ** 53 - 1, '8.0 PiB'],
  [2 ** 63, '8192 PiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test('what is printed of a size is within a twentieth of it', () => {
  const factor: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, PiB: 2 ** 50 };
  fc.assert(
    fc.property(fc.maxSafeNat(), (bytes) => {
      const [value, unit] = formatBytes(bytes).split(' ') as [string, string];
      expect(value.length).toBeLessThanOrEqual(4);
      expect(Math.abs(Number(value) * factor[unit]! - bytes)).toBeLessThanOrEqual(bytes / 20);
    }),
  );
});

test.each([
  [0, '0 ms'],
  [999.4, '999 ms'],
  [999.5, '1 s'],
  [59_499, '59 s'],
  [59_500, '1 min 00 s'],
  [65_000, '1 min 05 s'],
  [3_599_500, '1 h 00 min'],
  [7_380_000, '2 h 03 min'],
  [273_600_000, '3 d 04 h'],
])('%d ms are %s', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test.each([-1, Number.NaN, Number.POSITIVE_INFINITY])('%d is no amount', (value) => {
  expect(() => formatBytes(value)).toThrow(RangeError);
  expect(() => formatDuration(value)).toThrow(RangeError);
});

describe('table', () => {
  test('aligns text left and numbers right, under their names', () => {
    const rows = [
      { name: 'web', size: 5, tags: ['a', 'b'], at: new Date(0) },
      { name: 'Datenbänke', size: 1200, host: 'h1', at: undefined },
    ];
    expect(table(rows).split('\n')).toEqual([
      'name        size  tags  at                        host',
      '----------  ----  ----  ------------------------  ----',
      'web            5  a, b  1970-01-01T00:00:00.000Z',
      'Datenbänke  1200                                  h1',
    ]);
  });

  test('shows the columns asked for, in that order', () => {
    expect(table([{ a: 1, b: { c: 2 }, d: 3n }], { columns: ['d', 'b', 'x'] }).split('\n')).toEqual([
      'd  b        x',
      '-  -------  -',
      '3  {"c":2}',
    ]);
  });

  test('nothing gives an empty text; control characters do not pass', () => {
    expect(table([])).toBe('');
    expect(table([{}])).toBe('');
    expect(table([{ name: 'a\n\x1b[31mb\tc' }])).toBe('name\n-----\na b c');
  });
});
