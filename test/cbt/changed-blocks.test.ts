import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CBT_BLOCK_SIZE, ChangedBlocks } from '../../src/cbt/index.ts';
import { FormatError } from '../../src/core/index.ts';

const TIB = 2 ** 40;

function changed(bytes: readonly number[], diskSize: number): ChangedBlocks {
  return ChangedBlocks.fromBase64(Buffer.from(bytes).toString('base64'), { diskSize });
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof FormatError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'no error';
}

/** A disk size of up to `blocks` blocks, most of them not a multiple of the block size, and random bits for it. */
const bitmapAndSize = fc
  .record({ blocks: fc.integer({ min: 0, max: 150 }), short: fc.integer({ min: 0, max: CBT_BLOCK_SIZE - 1 }) })
  .chain(({ blocks, short }) =>
    fc.record({
      diskSize: fc.constant(blocks === 0 ? 0 : blocks * CBT_BLOCK_SIZE - short),
      bytes: fc.uint8Array({ minLength: Math.ceil(blocks / 8), maxLength: Math.ceil(blocks / 8) }),
    }),
  );

/** Bit by bit, as the host's documentation says it. */
function naiveBlocks(bytes: Uint8Array, diskSize: number): number[] {
  const blocks: number[] = [];
  for (let i = 0; i * CBT_BLOCK_SIZE < diskSize; i++) if ((bytes[i >> 3]! & (0x80 >> (i & 7))) !== 0) blocks.push(i);
  return blocks;
}

describe('reading the bitmap', () => {
  test('the most significant bit comes first', () => {
    const blocks = changed([0b1000_0001, 0b0100_0000], 16 * CBT_BLOCK_SIZE);
    expect([...blocks.extents()]).toEqual([
      { offset: 0, length: 65536 },
      { offset: 7 * 65536, length: 65536 },
      { offset: 9 * 65536, length: 65536 },
    ]);
    expect(blocks).toMatchObject({ count: 3, changedBytes: 3 * 65536, blockSize: 65536, diskSize: 16 * 65536 });
    expect([0, 1, 7, 9, 15, 16, -1, 0.5].map((index) => blocks.has(index))).toEqual([
      true,
      false,
      true,
      true,
      false,
      false,
      false,
      false,
    ]);
  });

  test('the last block ends where the disk ends', () => {
    const blocks = changed([0b1100_0000], CBT_BLOCK_SIZE + 512);
    expect([...blocks.extents()]).toEqual([{ offset: 0, length: CBT_BLOCK_SIZE + 512 }]);
    expect(blocks).toMatchObject({ count: 2, changedBytes: CBT_BLOCK_SIZE + 512 });
  });

  test('bits beyond the last block say nothing', () => {
    const dirty = changed([0b0101_1111], 3 * CBT_BLOCK_SIZE);
    expect(dirty).toMatchObject({ count: 1, changedBytes: CBT_BLOCK_SIZE });
    expect([...dirty.extents({ mergeGap: 10 * CBT_BLOCK_SIZE })]).toEqual([{ offset: 65536, length: 65536 }]);
    expect([3, 4, 7].map((index) => dirty.has(index))).toEqual([false, false, false]);
    expect(dirty.toBase64()).toBe(Buffer.from([0b0100_0000]).toString('base64'));
  });

  test('a disk without bytes has an empty bitmap', () => {
    const none = ChangedBlocks.fromBase64('', { diskSize: 0 });
    expect(none).toMatchObject({ count: 0, changedBytes: 0 });
    expect([...none.extents({ mergeGap: 1 })]).toEqual([]);
    expect(none.toBase64()).toBe('');
  });

  test('white space in the text is passed over', () => {
    const blocks = ChangedBlocks.fromBase64('gA\n==\r\n', { diskSize: 8 * CBT_BLOCK_SIZE });
    expect([...blocks.extents()]).toEqual([{ offset: 0, length: 65536 }]);
  });

  test.each([
    [8, 0],
    [8, 2],
    [9, 1],
    [9, 3],
    [24, 2],
    [24, 4],
  ])('of %i blocks: %i bytes are refused', (blocks, bytes) => {
    const diskSize = blocks * CBT_BLOCK_SIZE;
    expect(codeOf(() => changed(Array<number>(bytes).fill(0), diskSize))).toBe(
      `CBT_LENGTH: bitmap of changed blocks of a disk of ${diskSize} bytes at offset 0: ` +
        `expected ${Math.ceil(blocks / 8)} bytes, got ${bytes} bytes`,
    );
  });

  test('one byte more of disk needs one bit more', () => {
    expect(codeOf(() => changed([0xff], 8 * CBT_BLOCK_SIZE))).toBe('no error');
    expect(codeOf(() => changed([0xff], 8 * CBT_BLOCK_SIZE + 1))).toMatch(
      /^CBT_LENGTH: .*expected 2 bytes, got 1 bytes/,
    );
  });

  test.each(['AA=', 'A', 'AAAAA', 'AA-_', 'A===', '=AAA', 'AA=A', '====', 'AA==AA==', 'Ä===', '\0\0\0\0'])(
    '%j is no base64',
    (text) => {
      expect(codeOf(() => ChangedBlocks.fromBase64(text, { diskSize: CBT_BLOCK_SIZE }))).toMatch(/^CBT_BASE64: /);
    },
  );

  test('errors name what the bitmap belongs to', () => {
    expect(codeOf(() => ChangedBlocks.fromBase64('?', { diskSize: 1, name: 'VDI x' }))).toMatch(/^CBT_BASE64: VDI x: /);
    expect(codeOf(() => ChangedBlocks.fromBase64('', { diskSize: 1, name: 'VDI x' }))).toMatch(/^CBT_LENGTH: VDI x: /);
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 53])('a disk size of %d is refused', (diskSize) => {
    expect(() => ChangedBlocks.fromBase64('', { diskSize })).toThrow(RangeError);
  });
});

describe('against the naive reading', () => {
  test('blocks, counts, bytes and text', () => {
    fc.assert(
      fc.property(bitmapAndSize, ({ diskSize, bytes }) => {
        const blocks = changed([...bytes], diskSize);
        const naive = naiveBlocks(bytes, diskSize);
        expect(blocks.count).toBe(naive.length);
        expect(Array.from({ length: 160 }, (_, i) => i).filter((i) => blocks.has(i))).toEqual(naive);
        const sizes = naive.map((i) => Math.min(CBT_BLOCK_SIZE, diskSize - i * CBT_BLOCK_SIZE));
        expect(blocks.changedBytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
        const again = ChangedBlocks.fromBase64(blocks.toBase64(), { diskSize });
        expect([...again.extents()]).toEqual([...blocks.extents()]);
      }),
    );
  });

  test('extents of any range with any gap', () => {
    const gap = fc.oneof(fc.constantFrom(0, 1, 65535, 65536, 65537, 3 * 65536), fc.maxSafeNat());
    const part = fc.tuple(fc.nat(), fc.nat());
    fc.assert(
      fc.property(bitmapAndSize, gap, part, ({ diskSize, bytes }, mergeGap, [a, b]) => {
        const offset = a % (diskSize + 1);
        const length = b % (diskSize - offset + 1);
        // Naive: list, join, cut, in three passes over the whole disk.
        const joined: { from: number; to: number }[] = [];
        for (const i of naiveBlocks(bytes, diskSize)) {
          const from = i * CBT_BLOCK_SIZE;
          const to = Math.min(from + CBT_BLOCK_SIZE, diskSize);
          const last = joined.at(-1);
          if (last !== undefined && from - last.to <= mergeGap) last.to = to;
          else joined.push({ from, to });
        }
        const cut = joined
          .map(({ from, to }) => ({ from: Math.max(from, offset), to: Math.min(to, offset + length) }))
          .filter(({ from, to }) => from < to)
          .map(({ from, to }) => ({ offset: from, length: to - from }));
        expect([...changed([...bytes], diskSize).extents({ mergeGap, offset, length })]).toEqual(cut);
      }),
      { numRuns: 500 },
    );
  });

  test('union and intersection', () => {
    const pair = bitmapAndSize.chain((one) =>
      fc.record({
        one: fc.constant(one),
        other: fc.uint8Array({ minLength: one.bytes.length, maxLength: one.bytes.length }),
      }),
    );
    fc.assert(
      fc.property(pair, ({ one: { diskSize, bytes }, other }) => {
        const a = changed([...bytes], diskSize);
        const b = changed([...other], diskSize);
        const before = a.toBase64();
        const either = changed([...bytes.map((byte, i) => byte | other[i]!)], diskSize);
        const both = changed([...bytes.map((byte, i) => byte & other[i]!)], diskSize);
        expect(a.union(b).toBase64()).toBe(either.toBase64());
        expect(a.intersect(b).toBase64()).toBe(both.toBase64());
        expect(a.union(b).count).toBe(a.count + b.count - a.intersect(b).count);
        expect(a.toBase64()).toBe(before);
      }),
    );
  });
});

test('disks of different sizes do not combine', () => {
  const a = changed([0], 8 * CBT_BLOCK_SIZE);
  const b = changed([0], 8 * CBT_BLOCK_SIZE - 1);
  expect(() => a.union(b)).toThrow(RangeError);
  expect(() => a.intersect(b)).toThrow(RangeError);
});

test.each([{ mergeGap: -1 }, { mergeGap: Number.NaN }, { offset: -1 }, { offset: 65537 }, { length: 65537 }])(
  'extents refuse %o',
  (options) => {
    expect(() => [...changed([0], CBT_BLOCK_SIZE).extents(options)]).toThrow(RangeError);
  },
);

test('a disk of 16 TiB, one block changed near its end', () => {
  const blocks = (16 * TIB) / CBT_BLOCK_SIZE;
  const bitmap = Buffer.alloc(blocks / 8);
  bitmap[bitmap.length - 1] = 0b0000_0010;
  const one = ChangedBlocks.fromBase64(bitmap.toString('base64'), { diskSize: 16 * TIB });
  expect([...one.extents()]).toEqual([{ offset: 16 * TIB - 2 * CBT_BLOCK_SIZE, length: CBT_BLOCK_SIZE }]);
  expect(one.has(blocks - 2)).toBe(true);
});

test('extents are made one at a time, not as a list', () => {
  const alternating = ChangedBlocks.fromBase64(Buffer.alloc(2 * 2 ** 20, 0xaa).toString('base64'), { diskSize: TIB });
  const extents = alternating.extents();
  expect(extents.next().value).toEqual({ offset: 0, length: CBT_BLOCK_SIZE });
  expect(extents.next().value).toEqual({ offset: 2 * CBT_BLOCK_SIZE, length: CBT_BLOCK_SIZE });
  extents.return();
});
