import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Block, BlockDigests, type Disk, memoryDisk } from '../../src/disk/index.ts';
import { openVhdDraft, writeVhd } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { randomFrom } from '../support/random.ts';
import { tempDir } from '../support/temp-dir.ts';
import { modelDisk } from './support/model-disk.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;
const HEAD = 2048 + 512; // of a dynamic VHD of few blocks
const STRIDE = BLOCK + 512;
const RECORD = 36;
const SIZE = 17 * MIB;
const IDENTITY = { uuid: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee', timestamp: new Date('2020-01-01T00:00:00Z') };
const PARENT = { uuid: '11111111-2222-3333-4444-555555555555', name: 'base.vhd', timestamp: new Date('2001-01-01') };

/** Blocks 0, 1, 4, 5 and the short one at the end have data. */
function someBytes(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (const at of [0, 3 * MIB, 9 * MIB, 11.5 * MIB, SIZE - 512]) bytes.set(patterned(512, at + 1), at);
  return bytes;
}

/** The same, and the disk knows which blocks have data. */
function sparseDisk(): Disk {
  const runs = [0, 1, 4, 5, 8].map((index) => {
    const offset = index * BLOCK;
    return { offset, length: Math.min(BLOCK, SIZE - offset), kind: 'data' } as const;
  });
  return modelDisk(someBytes(), runs, 'zero');
}

/** The disk, until so many bytes have been read of it. */
function breaking(disk: Disk, afterReads: number): Disk & { reads: number[] } {
  const reads: number[] = [];
  return {
    ...disk,
    reads,
    async readInto(target, offset, options) {
      if (reads.length >= afterReads) throw new Error('the line is cut');
      reads.push(offset);
      await disk.readInto(target, offset, options);
    },
  };
}

async function* blocksOf(bytes: Uint8Array): AsyncGenerator<Block, void> {
  for (let offset = 0; offset < bytes.byteLength; offset += BLOCK) {
    yield { offset, data: bytes.subarray(offset, offset + BLOCK) };
  }
}

async function makePlace() {
  const dir = await tempDir();
  const [path, journal] = [join(dir, 'draft.vhd'), join(dir, 'draft.journal')];
  const what = { ...IDENTITY, size: SIZE, source: 'a snapshot' };
  const openDraft = (options: Partial<Parameters<typeof openVhdDraft>[2]> = {}) =>
    openVhdDraft(path, journal, { ...what, ...options });
  const expected = async (from: Disk, options = {}) => {
    const whole = join(dir, `whole-${Math.random()}.vhd`);
    await writeVhd(from, whole, { ...IDENTITY, ...options });
    return readFile(whole);
  };
  return { path, journal, openDraft, expected };
}

/** Writes until the disk breaks. */
async function interrupted(openDraft: Awaited<ReturnType<typeof makePlace>>['openDraft'], disk: Disk) {
  await using draft = await openDraft();
  await expect(draft.write(disk, { readAhead: 0 })).rejects.toThrow('the line is cut');
  return draft.offset;
}

test('is, when nothing comes between, what writeVhd writes', async () => {
  const { path, openDraft, expected } = await makePlace();
  const disk = memoryDisk(someBytes());
  await using draft = await openDraft();
  expect(draft.offset).toBe(0);
  await draft.write(disk);
  expect(draft.offset).toBe(SIZE);
  const written = await draft.finish();
  const bytes = await expected(disk);
  expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
  expect(written).toMatchObject({ length: bytes.byteLength, uuid: IDENTITY.uuid });
  expect([...written.blockIndexes]).toEqual([0, 1, 4, 5, 8]);
});

test.each([0, 1, 2, 3, 4, 5])(
  'goes on after an interruption at read %i where it was, and reads nothing twice',
  async (reads) => {
    const { path, openDraft, expected } = await makePlace();
    const disk = sparseDisk();
    const first = breaking(disk, reads);
    if (reads < 5) await interrupted(openDraft, first);
    else {
      await using draft = await openDraft();
      await draft.write(first, { readAhead: 0 });
    }
    const rest = breaking(disk, Infinity);
    const digests = new BlockDigests(SIZE);
    await using draft = await openDraft({ onBlock: (offset, data) => digests.add(offset, data) });
    expect(draft.offset).toBe([0, 2, 4, 10, 12, 17][reads]! * MIB);
    if (draft.offset < SIZE) await draft.write(rest, { readAhead: 0 });
    await draft.finish();
    expect([...first.reads, ...rest.reads]).toEqual([0, BLOCK, 4 * BLOCK, 5 * BLOCK, 8 * BLOCK]);
    expect(Buffer.compare(await readFile(path), await expected(disk))).toBe(0);
    const whole = new BlockDigests(SIZE);
    for await (const { offset, data } of blocksOf(someBytes())) await whole.add(offset, data);
    expect(await digests.root()).toBe(await whole.root());
  },
);

test('a stream that begins anew is left out as far as the draft is', async () => {
  const { path, openDraft, expected } = await makePlace();
  const bytes = someBytes();
  expect(await interrupted(openDraft, breaking(sparseDisk(), 3))).toBe(5 * BLOCK);
  await using draft = await openDraft();
  await draft.write({ size: SIZE, blocks: blocksOf(bytes) });
  await draft.finish();
  expect(Buffer.compare(await readFile(path), await expected(memoryDisk(bytes)))).toBe(0);
});

test('goes on in the same process, too', async () => {
  const { path, openDraft, expected } = await makePlace();
  const disk = sparseDisk();
  await using draft = await openDraft();
  await expect(draft.write(breaking(disk, 2))).rejects.toThrow('the line is cut');
  await expect(draft.finish()).rejects.toThrow(RangeError);
  await draft.write(disk);
  await draft.finish();
  expect(Buffer.compare(await readFile(path), await expected(disk))).toBe(0);
});

test('a differencing one keeps what its bitmaps say', async () => {
  const { path, openDraft, expected } = await makePlace();
  const disk: Disk = {
    ...memoryDisk(someBytes()),
    async *extents({ offset = 0, length = SIZE - offset } = {}) {
      const cuts = [0, 512, 3 * MIB, 3 * MIB + 512, 9 * MIB, 9 * MIB + 1024, SIZE];
      for (const [i, from] of cuts.slice(0, -1).entries()) {
        const [start, end] = [Math.max(from, offset), Math.min(cuts[i + 1]!, offset + length)];
        if (end > start) yield { offset: start, length: end - start, kind: i % 2 === 0 ? 'data' : 'absent' };
      }
    },
  };
  const options = { parent: PARENT };
  {
    await using draft = await openDraft(options);
    await expect(draft.write(breaking(disk, 2), { readAhead: 0 })).rejects.toThrow('the line is cut');
    expect(draft.offset).toBe(2 * BLOCK);
  }
  await using draft = await openDraft(options);
  expect(draft.offset).toBe(2 * BLOCK);
  await draft.write(disk);
  await draft.finish();
  expect(Buffer.compare(await readFile(path), await expected(disk, options))).toBe(0);
});

describe('forgets', () => {
  const changes: [string, number, (place: Awaited<ReturnType<typeof makePlace>>) => Promise<void>][] = [
    ['a block whose bytes are not what was written', 1, ({ path }) => flip(path, HEAD + STRIDE + 700)],
    ['a block whose bitmap is not', 1, ({ path }) => flip(path, HEAD + STRIDE)],
    ['blocks that a power cut took from the file', 2, ({ path }) => truncate(path, HEAD + 2 * STRIDE + 5000)],
    ['half a record', 2, ({ journal }) => truncate(journal, 32 + 2 * RECORD + 20)],
    ['a record that is not of this draft', 2, ({ journal }) => flip(journal, 32 + 2 * RECORD + 10)],
    ['an index that cannot be', 1, ({ journal }) => flip(journal, 32 + RECORD)],
    ['all where the journal is gone', 0, ({ journal }) => writeFile(journal, '')],
    ['all where the journal is of something else', 0, ({ journal }) => flip(journal, 5)],
    ['all where the file is gone', 0, ({ path }) => truncate(path)],
  ];
  test.each(changes)('%s', async (_, blocks, change) => {
    const place = await makePlace();
    const { path, journal, openDraft, expected } = place;
    const disk = sparseDisk();
    expect(await interrupted(openDraft, breaking(disk, 3))).toBe(5 * BLOCK);
    await change(place);
    await using draft = await openDraft();
    expect(draft.offset).toBe(blocks * BLOCK);
    expect((await stat(journal)).size).toBe(32 + blocks * RECORD);
    await draft.write(disk);
    await draft.finish();
    expect(Buffer.compare(await readFile(path), await expected(disk))).toBe(0);
  });

  test.each([
    ['source', { source: 'another snapshot' }],
    ['uuid', { uuid: 'bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee' }],
    ['time', { timestamp: new Date('2021-01-01') }],
    ['size', { size: SIZE + 512 }],
    ['parent', { parent: PARENT }],
  ])('all where the %s is another', async (_, other) => {
    const { openDraft } = await makePlace();
    await interrupted(openDraft, breaking(sparseDisk(), 3));
    await using draft = await openDraft(other);
    expect(draft.offset).toBe(0);
  });

  async function flip(path: string, at: number): Promise<void> {
    await using file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, at);
    byte[0]! ^= 0x40;
    await file.write(byte, 0, 1, at);
  }
});

test('long runs of zeros are not read again', async () => {
  const { path, journal } = await makePlace();
  const size = 3 * 1024 * MIB;
  const what = { ...IDENTITY, size, source: 'zeros' };
  const end = patterned(512);
  const disk = (breakAt: number): Disk => ({
    ...memoryDisk(new Uint8Array()),
    size,
    async *extents({ offset = 0, length = size - offset } = {}) {
      yield { offset, length, kind: 'data' };
    },
    async readInto(target, offset) {
      if (offset >= breakAt) throw new Error('the line is cut');
      target.fill(0);
      if (offset + target.byteLength === size) target.set(end, target.byteLength - 512);
    },
  });
  {
    await using draft = await openVhdDraft(path, journal, what);
    await expect(draft.write(disk(2000 * MIB))).rejects.toThrow('the line is cut');
  }
  await using draft = await openVhdDraft(path, journal, what);
  expect(draft.offset).toBeGreaterThan(1024 * MIB);
  await draft.write(disk(Infinity));
  expect((await draft.finish()).blockIndexes).toEqual(new Uint32Array([1535]));
});

test('any disk, interrupted anywhere any number of times, is what it would have been', {
  timeout: 60_000,
}, async () => {
  const seed = Number(process.env['TEST_SEED'] ?? Date.now() % 2 ** 31);
  const random = randomFrom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  for (let round = 0; round < 25; round++) {
    const { path, journal, openDraft, expected } = await makePlace();
    const bytes = new Uint8Array(SIZE);
    for (let i = below(12); i > 0; i--) bytes.set(patterned(512, i), below(SIZE / 512) * 512);
    const disk = memoryDisk(bytes);
    for (let cuts = below(4); cuts > 0; cuts--) {
      await using draft = await openDraft();
      const broken = breaking(disk, below(9));
      await draft.write(broken, { readAhead: below(4) }).catch(() => {});
      if (below(3) === 0) await truncate(path, below((await stat(path)).size + 1));
      if (below(3) === 0) await truncate(journal, below((await stat(journal)).size + 1));
    }
    await using draft = await openDraft();
    if (draft.offset < SIZE) await draft.write(disk);
    await draft.finish();
    expect(Buffer.compare(await readFile(path), await expected(disk)), `TEST_SEED=${seed}, round ${round}`).toBe(0);
  }
});
