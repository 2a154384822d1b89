import { expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { copyPoint, directoryStore, type Manifest, memoryStore, openRepository } from '../../src/store/index.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { faultyStore } from './support/faulty-store.ts';
import { idOf, MIB, makePoint, VM } from './support/points.ts';

/** A repository with a full and two increments. */
async function threePoints() {
  const repository = await openRepository(memoryStore());
  const points: Manifest[] = [];
  for (let n = 0; n < 3; n++) points.push(await makePoint(repository, patterned(MIB, n), points.at(-1)));
  return { repository, points };
}

test('a point comes with all that it needs, under the same names, and once', async () => {
  const { repository, points } = await threePoints();
  const target = await openRepository(await directoryStore(await tempDir()));
  const report = await copyPoint(repository, target, idOf(points[1]!));
  expect(report.copied).toEqual(points.slice(0, 2).map(idOf));
  expect(report.present).toEqual([]);
  expect(report.bytes).toBeGreaterThan(0);
  expect(await target.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
  for (const point of points.slice(0, 2)) expect(await target.get(idOf(point))).toEqual(point);
  const again = await copyPoint(repository, target, idOf(points[2]!));
  expect([again.present.length, again.copied.length]).toEqual([2, 1]);
  for (const { disks, ...manifest } of points) {
    for (const { vdiUuid } of disks) {
      await using here = await repository.openDisk(idOf(manifest as Manifest), vdiUuid);
      await using there = await target.openDisk(idOf(manifest as Manifest), vdiUuid);
      expect(Buffer.compare(await readBytes(here, 0, here.size), await readBytes(there, 0, there.size))).toBe(0);
    }
  }
});

test('damage is not copied: the point is not there, and the next copy of a whole one is', async () => {
  const { repository, points } = await threePoints();
  const target = await openRepository(memoryStore());
  const file = points[1]!.files.find(({ role }) => role === 'disk')!;
  const name = `vms/${VM}/${file.name}`;
  await using source = await repository.store.open(name);
  const bytes = await readBytes(source, 0, source.size);
  const damaged = bytes.slice();
  damaged[Math.floor(damaged.length / 2)]! ^= 1;
  await repository.store.write(name, damaged, { replace: true });
  await expect(copyPoint(repository, target, idOf(points[1]!))).rejects.toMatchObject({
    code: 'POINT_BROKEN',
    facts: { field: 'SHA-256' },
  });
  expect((await target.list()).map(({ point }) => point)).toEqual([points[0]!.point]);
  await repository.store.write(name, bytes, { replace: true });
  await copyPoint(repository, target, idOf(points[1]!));
  expect(await target.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
});

test.each(['before', 'after'] as const)(
  'whatever operation fails %s its work, the next copy ends it',
  async (moment) => {
    for (let n = 1; ; n++) {
      const { repository, points } = await threePoints();
      const store = memoryStore();
      await openRepository(store);
      const faulty = faultyStore(store, n, moment);
      const copying = openRepository(faulty).then((target) => copyPoint(repository, target, idOf(points[2]!)));
      await copying.catch(() => {}); // what failed is injected
      const target = await openRepository(store);
      expect((await target.verify('all', { level: 'content' })).ok, `operation ${n}: ${faulty.failed}`).toBe(true);
      await copyPoint(repository, target, idOf(points[2]!));
      const after = await target.verify('all', { level: 'content' });
      expect(after, `operation ${n}: ${faulty.failed}`).toMatchObject({ ok: true, orphans: [], points: { length: 3 } });
      if (faulty.failed === undefined) return;
    }
  },
);

test('a file of a point that never was, under the same name, does not pass for its own', async () => {
  const { repository, points } = await threePoints();
  const target = await openRepository(memoryStore());
  const file = points[0]!.files.find(({ role }) => role === 'disk')!;
  await target.store.write(`vms/${VM}/${file.name}`, patterned(file.length, 99));
  await copyPoint(repository, target, idOf(points[0]!));
  expect((await target.verify('all', { level: 'content' })).ok).toBe(true);
});

test('an abort leaves no half point; an unknown one is NOT_FOUND', async () => {
  const { repository, points } = await threePoints();
  const target = await openRepository(memoryStore());
  const stop = new AbortController();
  const onProgress = () => stop.abort(new Error('enough'));
  await expect(copyPoint(repository, target, idOf(points[0]!), { signal: stop.signal, onProgress })).rejects.toThrow(
    'enough',
  );
  expect(await target.list()).toEqual([]);
  const unknown = { vmUuid: VM, point: '20200101t000000000z-full-000000' };
  await expect(copyPoint(repository, target, unknown)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
