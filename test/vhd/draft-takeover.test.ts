import { randomBytes } from 'node:crypto';
import { link, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fileSource } from '../../src/bytes/index.ts';
import { type Block, type Disk, hashDisk, memoryDisk } from '../../src/disk/index.ts';
import { openVhd, openVhdDraft } from '../../src/vhd/index.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const identity = { source: 's', uuid: '11111111-2222-3333-4444-555555555555', timestamp: new Date(1.7e12) };

async function hashVhd(path: string) {
  const file = await open(path);
  await using disk = await openVhd(fileSource(file, (await file.stat()).size, path));
  return await hashDisk(disk);
}

/** The first blocks of a disk, then a failure. */
async function* firstBlocks(bytes: Uint8Array, count: number): AsyncGenerator<Block> {
  for (let i = 0; i < count; i++) yield { offset: i * 2 * MIB, data: bytes.slice(i * 2 * MIB, (i + 1) * 2 * MIB) };
  throw new Error('cut');
}

test('a writer that slept in its recovery cuts a file that another one has published', async () => {
  await using dir = await makeTempDir();
  const [path, journal, point] = ['kept', 'journal', 'point.vhd'].map((n) => join(dir.path, n)) as [
    string,
    string,
    string,
  ];
  const bytes = new Uint8Array(randomBytes(8 * MIB));
  const options = { ...identity, size: bytes.byteLength };
  // An earlier run moved one block.
  const first = await openVhdDraft(path, journal, options);
  await first.write({ size: bytes.byteLength, blocks: firstBlocks(bytes, 2) }).catch(() => {});
  await first.close();
  // A goes on with it, and sleeps while it compares.
  const asleep = Promise.withResolvers<void>();
  const wake = Promise.withResolvers<void>();
  const a = openVhdDraft(path, journal, {
    ...options,
    async onBlock() {
      asleep.resolve();
      await wake.promise;
    },
  });
  await asleep.promise;
  // B has the lease now: it goes on, ends, and publishes as the store does.
  const b = await openVhdDraft(path, journal, options);
  await b.write(memoryDisk(bytes));
  await b.finish();
  await b.close();
  await link(path, point);
  await rm(path);
  const good = await readFile(point);
  // A wakes. It has not found out yet that it lost its lease (up to 2.5 minutes).
  wake.resolve();
  await expect(a).rejects.toMatchObject({ code: 'DRAFT_TAKEN' });
  expect((await stat(point)).size).toBe(good.byteLength);
  expect(await hashVhd(point)).toBe(await hashDisk(memoryDisk(bytes)));
});

test('a writer that slept writes other bytes to a draft that was begun anew for another source', async () => {
  await using dir = await makeTempDir();
  const [path, journal] = ['kept', 'journal'].map((n) => join(dir.path, n)) as [string, string];
  const bytes = new Uint8Array(randomBytes(8 * MIB));
  const size = bytes.byteLength;
  // A moves a delta (block 3 only changed) and sleeps before its one block arrives.
  const asleep = Promise.withResolvers<void>();
  const wake = Promise.withResolvers<void>();
  const parent = { uuid: '99999999-2222-3333-4444-555555555555', name: 'base.vhd', timestamp: new Date(1.6e12) };
  const a = await openVhdDraft(path, journal, { ...identity, source: 'delta', size, parent });
  async function* slow(): AsyncGenerator<Block> {
    asleep.resolve();
    await wake.promise;
    yield { offset: 6 * MIB, data: bytes.slice(6 * MIB) };
  }
  const writing = a.write({ size, blocks: slow() });
  await asleep.promise;
  // B: the host refuses to tell the changes now, the disk becomes a full of the same snapshot, under the same key.
  const b = await openVhdDraft(path, journal, { ...identity, source: 'full', size });
  await b.write(memoryDisk(bytes));
  wake.resolve();
  await expect(writing).rejects.toMatchObject({ code: 'DRAFT_TAKEN' });
  await a.close();
  await b.finish();
  await b.close();
  expect(await hashVhd(path)).toBe(await hashDisk(memoryDisk(bytes)));
});

test('the seam for measuring is used', async () => {
  await using dir = await makeTempDir();
  const bytes = new Uint8Array(randomBytes(4 * MIB));
  await using draft = await openVhdDraft(join(dir.path, 'd'), join(dir.path, 'j'), {
    ...identity,
    size: bytes.byteLength,
  });
  let passed = 0;
  await draft.write(memoryDisk(bytes) as Disk, {
    through: async function* (blocks) {
      for await (const block of blocks) {
        passed++;
        yield block;
      }
    },
  });
  expect(passed).toBe(2);
});
