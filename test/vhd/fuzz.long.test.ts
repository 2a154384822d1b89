// Twenty thousand damaged files, streams and links: an answer or a typed error, in bounded steps and bounded memory.
import { mkdir, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ByteSource, memorySource } from '../../src/bytes/index.ts';
import { BackupError } from '../../src/core/index.ts';
import { checkVhd, openVhd, openVhdChain, readVhdStream } from '../../src/vhd/index.ts';
import { chunksOfSizes } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { type Allocations, countAllocations } from './support/count-allocations.ts';
import { type Damage, damage, damaged } from './support/damage.ts';
import { vhdFixture } from './support/fixture.ts';
import { ALL, bits, type TinyVhd, tinyVhd } from './support/tiny-vhd.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const ROOT_UUID = '11111111-2222-3333-4444-555555555555';
const base: TinyVhd = {
  size: 6 * 64 * KIB,
  blockSize: 64 * KIB,
  uuid: ROOT_UUID,
  blocks: [
    { index: 4, bitmap: ALL.subarray(0, 16), data: ALL, gap: 3584 },
    { index: 1, bitmap: ALL.subarray(0, 16), data: ALL },
  ],
};
const delta: TinyVhd = {
  ...base,
  type: 4,
  uuid: '22222222-2222-3333-4444-555555555555',
  parentUuid: ROOT_UUID,
  parentName: 'base.vhd',
  locators: [
    { code: 'W2ru', text: Buffer.from('.\\base.vhd', 'utf16le') },
    { code: 'MacX', text: Buffer.from('file://./base.vhd') },
  ],
  blocks: [0, 3, 5].map((index) => ({ index, bitmap: bits(0, 9, 31, 32, 127).subarray(0, 16), data: ALL })),
};
const small: TinyVhd = {
  size: 40 * KIB + 512,
  blockSize: 4 * KIB,
  blocks: [0, 2, 3, 9, 10].map((index) => ({ index, bitmap: bits(1, 2, 7).subarray(0, 1), data: ALL })),
};
const mapped: TinyVhd = { ...small, creator: 'tap\0', creatorVersion: 0x10003, tailGap: 8192 };
const fixed = () => {
  const whole = tinyVhd({ size: 8 * KIB, type: 2, tableEntries: 0 });
  return new Uint8Array([...new Uint8Array(8 * KIB).fill(5), ...whole.subarray(-512)]);
};

const ORIGINALS: Uint8Array[] = [tinyVhd(base), tinyVhd(delta), tinyVhd(small), tinyVhd(mapped), fixed()];
const original = fc.nat(ORIGINALS.length - 1);

let allocations: Allocations;
beforeAll(() => {
  allocations = countAllocations();
});
afterAll(() => allocations.stop());

type Outcome = 'fine' | 'refused';

async function outcomeOf(work: () => Promise<unknown>): Promise<Outcome> {
  try {
    await work();
    return 'fine';
  } catch (error) {
    if (error instanceof BackupError) return 'refused';
    throw error;
  }
}

/** A source that may be asked only so often: whoever reads in circles is stopped, not waited for. */
function limited(bytes: Uint8Array): ByteSource {
  const source = memorySource(bytes);
  let left = 100 + (4 * bytes.byteLength) / 512;
  return {
    ...source,
    async readInto(target, offset, options) {
      if (left-- <= 0) throw new Error(`more reads than a file of ${bytes.byteLength} bytes is worth`);
      await source.readInto(target, offset, options);
    },
  };
}

/** Reads all that the file itself holds; a damaged size may promise much more. */
async function readData(bytes: Uint8Array): Promise<void> {
  await using disk = await openVhd(limited(bytes));
  let end = 0;
  let steps = 0;
  for await (const { offset, length, kind } of disk.extents()) {
    if (steps++ > 10 + bytes.byteLength / 256) throw new Error('more extents than sectors');
    expect(offset).toBe(end);
    end = offset + length;
    if (kind === 'data') await disk.readInto(new Uint8Array(length), offset);
  }
  expect(end).toBe(disk.size);
}

async function fuzzFile(bytes: Uint8Array): Promise<Outcome> {
  allocations.reset();
  const report = await checkVhd(limited(bytes), { level: 'content' });
  const outcome = await outcomeOf(() => readData(bytes));
  expect(report.ok).toBe(outcome === 'fine');
  expect(allocations.largest).toBeLessThanOrEqual(Math.max(bytes.byteLength, 2 * MIB + 512));
  expect(allocations.total).toBeLessThanOrEqual(8 * bytes.byteLength + 4 * MIB);
  return outcome;
}

/**
 * What a stream may make its reader ask for at once, before its end is known: a block table of 16 MiB, or one block of
 * the largest size that is read (64 MiB) with its bitmap.
 */
const STREAM_LIMIT = 64 * MIB + 16 * KIB;

async function fuzzStream(bytes: Uint8Array, sizes: readonly number[]): Promise<Outcome> {
  allocations.reset();
  const outcome = await outcomeOf(async () => {
    const stream = await readVhdStream(chunksOfSizes(bytes, sizes));
    let end = 0;
    for await (const { offset, data } of stream.blocks) {
      expect(data.byteLength).toBeGreaterThan(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      end = offset + data.byteLength;
      expect(end).toBeLessThanOrEqual(stream.size);
    }
  });
  expect(allocations.largest).toBeLessThanOrEqual(STREAM_LIMIT);
  expect(allocations.total).toBeLessThanOrEqual(STREAM_LIMIT + 3 * 16 * MIB + 4 * bytes.byteLength);
  return outcome;
}

/** A property that counts its outcomes: both have to occur, or the damage is too little or too much. */
async function bothWays(property: (seen: Record<Outcome, number>) => Promise<void>): Promise<void> {
  const seen = { fine: 0, refused: 0 };
  await property(seen);
  expect(allocations.total).toBeGreaterThan(0); // they are counted
  expect(Math.min(seen.fine, seen.refused)).toBeGreaterThan(200);
}

test('9,000 damaged files open or are refused, and the check says the same', () =>
  bothWays((seen) =>
    fc.assert(
      fc.asyncProperty(original, damage, async (which, list) => {
        seen[await fuzzFile(damaged(ORIGINALS[which]!, list))]++;
      }),
      { numRuns: 9000 },
    ),
  ));

test('8,500 damaged streams are read or refused', () =>
  bothWays((seen) =>
    fc.assert(
      fc.asyncProperty(fc.nat(3), damage, fc.integer({ min: 300, max: 70_000 }), async (which, list, size) => {
        seen[await fuzzStream(damaged(ORIGINALS[which]!, list), [size, 0, 4096])]++;
      }),
      { numRuns: 8500 },
    ),
  ));

test('500 times damage to what other programs wrote', async () => {
  const names = ['qemu-img-7.2-dynamic-4mib.vhd', 'qemu-img-7.2-fixed-34816.vhd', 'vhd-util-child-8mib.vhd'];
  const files = await Promise.all(names.map(vhdFixture));
  await fc.assert(
    fc.asyncProperty(fc.nat(files.length - 1), damage, async (which, list) => {
      const bytes = damaged(files[which]!, list);
      await fuzzFile(bytes);
      await fuzzStream(bytes, [65_536]);
    }),
    { numRuns: 500 },
  );
});

test('2,000 damaged links lead to the parent or to a typed error', async () => {
  await using dir = await makeTempDir();
  await mkdir(dir.file('sub'));
  await writeFile(dir.file('base.vhd'), tinyVhd(base));
  const text = fc.oneof(
    fc.constantFrom(
      '',
      '.',
      '..',
      '/',
      'sub',
      'sub/x',
      'base.vhd/x',
      'child.vhd',
      '../base.vhd',
      'file://',
      'C:\\base.vhd',
    ),
    fc.string({ unit: 'binary', maxLength: 256 }),
    fc.string({ unit: 'grapheme', maxLength: 60 }),
    fc.constantFrom('x', '\u4e2d', './', '\\').map((piece) => piece.repeat(250 / piece.length)),
  );
  const code = fc.constantFrom('W2ru', 'W2ku', 'MacX', 'Wi2r', '\0\0\0\0');
  await bothWays((seen) =>
    fc.assert(
      fc.asyncProperty(
        text,
        code,
        text,
        fc.oneof(fc.constant<Damage>([]), damage),
        async (name, locator, other, list) => {
          const link = { code: locator, text: Buffer.from(other, locator === 'MacX' ? 'utf8' : 'utf16le') };
          const child = tinyVhd({ ...delta, parentName: name.slice(0, 256), locators: [link, ...delta.locators!] });
          await writeFile(dir.file('child.vhd'), damaged(child, list));
          const outcome = await outcomeOf(async () => {
            await using chain = await openVhdChain(dir.file('child.vhd'));
            for (const path of chain.paths) expect(path.startsWith(dir.path)).toBe(true);
          });
          seen[outcome]++;
        },
      ),
      { numRuns: 2000 },
    ),
  );
});
