// Whatever the structures hold: an answer or a typed error, never a crash, a hang or a huge allocation.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { checkVhd, openVhd, readVhdStream } from '../../src/vhd/index.ts';
import { chunksOf } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';
import { ALL, bits, sum, tinyVhd } from './support/tiny-vhd.ts';

const KIB64 = 64 * 1024;
const ORIGINAL = tinyVhd({
  size: 6 * KIB64,
  type: 4,
  blockSize: KIB64,
  parentUuid: '11111111-2222-3333-4444-555555555555',
  parentName: 'base.vhd',
  locators: [{ code: 'W2ru', text: Buffer.from('base.vhd', 'utf16le') }],
  blocks: [
    { index: 1, bitmap: ALL.subarray(0, 16), data: ALL },
    { index: 4, bitmap: bits(0, 9).subarray(0, 16), data: ALL },
  ],
});
const TABLE = 1536;

const value = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 511n, 512n, 513n, 1536n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const mutation = fc.record({
  at: fc.oneof(
    fc.constantFrom(8, 12, 16, 40, 48, 56, 60, 68, 85), // footer
    fc.constantFrom(0, 8, 16, 24, 28, 32, 40, 64, 576, 580, 584, 592).map((at) => 512 + at),
    fc.integer({ min: 0, max: 5 }).map((index) => TABLE + index * 4),
    fc.nat(TABLE + 1024),
  ),
  width: fc.constantFrom(1, 2, 4, 8),
  value,
});

/** Changed bytes whose checksums are right, so that what is behind them gets tested. */
function mutate(mutations: readonly { at: number; width: number; value: bigint }[], length: number): Uint8Array {
  const bytes = ORIGINAL.slice(0, length);
  const view = new DataView(bytes.buffer, 0, bytes.byteLength);
  for (const { at, width, value } of mutations) {
    for (let i = 0; i < width && at + i < bytes.byteLength; i++) {
      view.setUint8(at + i, Number((value >> BigInt(8 * (width - 1 - i))) & 0xffn));
    }
  }
  if (length < ORIGINAL.byteLength) return bytes;
  sum(bytes.subarray(0, 512), 64);
  sum(bytes.subarray(512, 1536), 36);
  bytes.set(bytes.subarray(0, 512), bytes.byteLength - 512);
  return bytes;
}

async function answer(work: () => Promise<unknown>): Promise<'fine' | 'refused'> {
  try {
    await work();
    return 'fine';
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return 'refused';
  }
}

test('a file with any fields opens or is refused, and the check says the same', async () => {
  const seen = { fine: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), fc.nat(20), async (mutations, cut) => {
      const bytes = mutate(mutations, cut === 0 ? Math.floor(ORIGINAL.byteLength / 3) : ORIGINAL.byteLength);
      const report = await checkVhd(memorySource(bytes), { level: 'content' });
      const outcome = await answer(async () => {
        await using disk = await openVhd(memorySource(bytes));
        // a mutated size may be large: only what is there is read
        for (const { offset, length, kind } of await toArray(disk.extents())) {
          if (kind === 'data') await disk.readInto(new Uint8Array(length), offset);
        }
      });
      expect(report.ok).toBe(outcome === 'fine');
      seen[outcome]++;
    }),
    { numRuns: 600 },
  );
  expect(Math.min(seen.fine, seen.refused)).toBeGreaterThan(20); // both ways were tested
});

test('a stream with any fields is read or refused', async () => {
  const seen = { fine: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), fc.nat(20), async (mutations, cut) => {
      const bytes = mutate(mutations, cut === 0 ? Math.floor(ORIGINAL.byteLength / 3) : ORIGINAL.byteLength);
      let end = 0;
      const outcome = await answer(async () => {
        const stream = await readVhdStream(chunksOf(bytes, 'odd'));
        for await (const { offset, data } of stream.blocks) {
          expect(offset).toBeGreaterThanOrEqual(end);
          end = offset + data.byteLength;
          expect(end).toBeLessThanOrEqual(stream.size);
        }
      });
      seen[outcome]++;
    }),
    { numRuns: 600 },
  );
  expect(Math.min(seen.fine, seen.refused)).toBeGreaterThan(20);
});
