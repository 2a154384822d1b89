import { expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { memoryStore, openRepository } from '../../src/store/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { idOf, MIB, makePoint, OTHER_VM, VDI, VM } from './support/points.ts';
import { sealed } from './support/seal.ts';

async function freshRepository() {
  const store = memoryStore();
  const clock = manualClock(Date.UTC(2026, 10, 22, 18, 5, 12, 345));
  return { store, clock, repository: await openRepository(store, { clock }) };
}

test('an empty store becomes a repository, and stays the same one', async () => {
  const { store, repository } = await freshRepository();
  expect((await store.list('')).names).toEqual(['repository.json']);
  expect(await repository.list()).toEqual([]);
  expect((await openRepository(store, { create: false })).id).toBe(repository.id);
});

test('two that make it at once open the same one', async () => {
  const store = memoryStore();
  const [a, b] = await Promise.all([openRepository(store), openRepository(store)]);
  expect(a.id).toBe(b.id);
});

test('refuses what is no repository', async () => {
  await expect(openRepository(memoryStore(), { create: false })).rejects.toMatchObject({ code: 'REPOSITORY_MISSING' });
  const foreign = memoryStore();
  await foreign.write('photos/cat.jpg', new Uint8Array(1));
  await expect(openRepository(foreign)).rejects.toMatchObject({ code: 'REPOSITORY_INVALID' });
  await expect(openRepository(foreign, { create: false })).rejects.toMatchObject({ code: 'REPOSITORY_INVALID' });
  expect((await foreign.list('')).names).toEqual(['photos/cat.jpg']);
});

test.each([
  ['', 'REPOSITORY_INVALID'],
  ['[]', 'REPOSITORY_INVALID'],
  ['{"format":{"major":1,"minor":0}}', 'REPOSITORY_INVALID'],
  ['{"format":{"major":1,"minor":0},"id":"x"}', 'REPOSITORY_INVALID'],
  ['{"format":{"major":"1","minor":0},"id":"1f0c7a52-9d6b-4a83-b1de-3f8f7b1a2c01"}', 'REPOSITORY_INVALID'],
  ['{"format":{"major":2}}', 'REPOSITORY_FORMAT_NEWER'],
])('repository.json %j is %s', async (content, code) => {
  for (const bytes of [Buffer.from(content), sealed(content)]) {
    const store = memoryStore();
    await store.write('repository.json', bytes);
    await expect(openRepository(store)).rejects.toMatchObject({ code });
  }
});

test('a repository.json with any byte changed is refused', async () => {
  const { store } = await freshRepository();
  await using source = await store.open('repository.json');
  const bytes = await readBytes(source, 0, source.size);
  for (let at = 0; at < bytes.byteLength; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1 << (at % 8);
    await store.write('repository.json', damaged, { replace: true });
    const code = expect.stringMatching(/^REPOSITORY_(?:INVALID|FORMAT_NEWER)$/);
    await expect(openRepository(store)).rejects.toMatchObject({ code });
  }
});

test('a point is named, laid out and read back as documented', async () => {
  const { store, repository } = await freshRepository();
  const content = patterned(2 * MIB);
  const manifest = await makePoint(repository, content);
  expect(manifest.point).toMatch(/^20261122t180512345z-full-[0-9a-f]{6}$/);
  const folder = `vms/${VM}`;
  expect((await store.list('')).names).toEqual([
    'repository.json',
    `${folder}/disks/${VDI}/${manifest.point}.vhd`,
    `${folder}/points/${manifest.point}.json`,
    `${folder}/points/${manifest.point}.metadata.json`,
  ]);
  const id = idOf(manifest);
  const summary = { vmUuid: VM, point: manifest.point, type: 'full', createdAt: '2026-11-22T18:05:12.345Z' };
  expect(await repository.list()).toEqual([summary]);
  expect(await repository.list({ vm: VM })).toEqual([summary]);
  expect(await repository.list({ vm: OTHER_VM })).toEqual([]);
  expect(await repository.get(id)).toStrictEqual(manifest);
  expect(await repository.readMetadata(id)).toEqual({ vm: { name: 'web' } });
  await using disk = await repository.openDisk(id, VDI);
  expect(Buffer.compare(await readBytes(disk, 0, disk.size), content)).toBe(0);
});
