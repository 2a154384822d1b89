import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { readBytes } from '../../src/bytes/index.ts';
import { digestDisk } from '../../src/disk/index.ts';
import { type Manifest, memoryStore, openRepository, type Repository, type Store } from '../../src/store/index.ts';
import { openVhd } from '../../src/vhd/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { toArray } from '../support/to-array.ts';

const MIB = 1024 * 1024;

interface World extends AsyncDisposable {
  readonly pool: Pool;
  readonly store: Store;
  readonly repository: Repository;
  /** A full and two increments by changed blocks, a full and an increment by images. */
  readonly points: readonly Manifest[];
}

async function startWorld(): Promise<World> {
  const pool = await startPool();
  const store = memoryStore();
  const repository = await openRepository(store);
  const vm = await pool.simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }, { size: 3 * MIB }] });
  const points: Manifest[] = [];
  for (const strategy of ['changed-blocks', 'changed-blocks', 'image', 'image', 'changed-blocks'] as const) {
    const at = points.length * MIB;
    await pool.simulator.writeDisk(vm.uuid, '0', at, randomBytes(3 * MIB));
    await pool.simulator.writeDisk(vm.uuid, '1', 512 * points.length, randomBytes(64 * 1024));
    points.push((await backupVm(pool.host, repository, { vm: vm.uuid, strategy })).manifest);
  }
  expect(points.map(({ type }) => type)).toEqual(['full', 'incr', 'full', 'incr', 'incr']);
  return { pool, store, repository, points, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

async function bytesOf(store: Store, name: string): Promise<Uint8Array> {
  await using source = await store.open(name);
  return await readBytes(source, 0, source.size);
}

async function withFlipped<T>(store: Store, name: string, at: number, look: () => Promise<T>): Promise<T> {
  const bytes = await bytesOf(store, name);
  const damaged = bytes.slice();
  damaged[at]! ^= 1 << (at % 8);
  await store.write(name, damaged, { replace: true });
  try {
    return await look();
  } finally {
    await store.write(name, bytes, { replace: true });
  }
}

/** The points that are lost with `point`: itself, and what builds on it. */
function touchedBy(points: readonly Manifest[], point: string): string[] {
  const touched = new Set([point]);
  for (const { point: above, base } of points) if (base !== undefined && touched.has(base)) touched.add(above);
  return [...touched].sort();
}

test('any byte of any file that flips: the file is named, and the points that it touches', {
  timeout: 120_000,
}, async () => {
  await using world = await startWorld();
  const { store, repository, points } = world;
  const { names } = await store.list('');
  const kinds = names.map((name) => name.replace(/^.*\.(?=[a-z.]+$)/, ''));
  expect(new Set(kinds)).toEqual(
    new Set(['digests', 'json', 'metadata.json', 'metadata.xva', 'vhd', 'xva'].map((kind) => kind.split('.').at(-1)!)),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...names),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      async (name, where) => {
        const at = Math.floor(where * (await bytesOf(store, name)).byteLength);
        await withFlipped(store, name, at, async () => {
          if (name === 'repository.json') {
            const code = expect.stringMatching(/^REPOSITORY_(?:INVALID|FORMAT_NEWER)$/);
            await expect(openRepository(store)).rejects.toMatchObject({ code });
            return;
          }
          const report = await repository.verify('all', { level: 'content' });
          const owner = points.find(({ point }) => name.includes(point))!;
          const damaged = report.points.filter(({ damage }) => damage.length > 0);
          expect(damaged.map(({ point }) => point)).toEqual([owner.point]);
          for (const { file } of damaged[0]!.damage) expect(file).toBe(name);
          const lost = report.points.filter(({ restorable }) => !restorable).map(({ point }) => point);
          expect(lost.sort()).toEqual(touchedBy(points, owner.point));
        });
      },
    ),
    { numRuns: 100 },
  );
  expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
});

test('the digest of every disk is recorded where that is asked for, and is that of the disk', async () => {
  await using world = await startWorld();
  const { pool, repository, points } = world;
  const vm = points[0]!.vm.uuid;
  expect(points.map(({ disks }) => disks.map(({ digest }) => digest !== undefined))).toEqual([
    [true, true],
    [false, false],
    [false, false],
    [false, false],
    [false, false],
  ]);
  const made = [points[0]!];
  for (const options of [{}, { strategy: 'image' }, { strategy: 'image', mode: 'full' }] as const) {
    await pool.simulator.writeDisk(vm, '0', 4 * MIB - 512, randomBytes(1024));
    made.push((await backupVm(pool.host, repository, { vm, digestDisks: true, ...options })).manifest);
  }
  for (const { point, disks } of made) {
    for (const { vdiUuid, digest } of disks) {
      await using disk = await repository.openDisk({ vmUuid: vm, point }, vdiUuid);
      expect(digest).toBe(await digestDisk(disk));
    }
  }
  const image = { vm, strategy: 'image', mode: 'full', compression: 'zstd', digestDisks: true } as const;
  const { manifest } = await backupVm(pool.host, repository, image);
  expect(manifest.disks.map(({ digest }) => digest)).toEqual([undefined, undefined]);
  expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
});

test('damage in a layer is told by its place in the file and on the disk', async () => {
  await using world = await startWorld();
  const { store, repository, points } = world;
  const { vm, disks } = points[1]!;
  const { file, vdiUuid } = disks[0]!;
  const name = `vms/${vm.uuid}/${file}`;
  await using layer = await openVhd(await store.open(name));
  const damageAt = (at: number) =>
    withFlipped(store, name, at, async () => {
      const { points: found } = await repository.verify(
        { vmUuid: vm.uuid, point: points[1]!.point },
        { level: 'content' },
      );
      return found.at(-1)!.damage;
    });
  for (const index of layer.blockIndexes!) {
    const offset = index * 2 * MIB;
    const fileOffset = layer.fileOffsetOf(offset)!;
    const [extent] = await toArray(layer.extents({ offset, length: 2 * MIB }));
    const own = extent!.kind === 'data' ? extent!.offset : extent!.offset + extent!.length;
    const damage = await damageAt(fileOffset + 512 + (own - offset) + 100);
    expect(damage).toEqual([
      {
        file: name,
        code: 'POINT_BROKEN',
        message: `${name}: damaged at ${fileOffset}: bytes ${offset} to ${offset + 2 * MIB} of disk ${vdiUuid}`,
        offset: fileOffset,
        disk: { vdiUuid, offset, length: 2 * MIB },
      },
    ]);
  }
  const between = await damageAt(1024); // in the header's reserved part or the like: no block has it
  expect(between).toHaveLength(1);
  expect(between[0]!.disk).toBeUndefined();
});

test('a verification that goes on where the last one was reads only what is new, and finds damage there', async () => {
  await using world = await startWorld();
  const { pool, store, repository, points } = world;
  const day = 24 * 3600_000;
  let now = Date.UTC(2026, 0, 1);
  const clock = { now: () => now, sleep: () => Promise.reject(new Error('nobody waits')) };
  const verify = (signal?: AbortSignal, onPoint?: () => void) =>
    repository.verify('all', {
      level: 'content',
      recheckAfterMs: 30 * day,
      clock,
      signal,
      onProgress: ({ kind }) => kind === 'stage' && onPoint?.(),
    });

  const stop = new AbortController();
  let begun = 0;
  const cut = verify(stop.signal, () => {
    if (++begun === 3) stop.abort('the night is over');
  });
  await expect(cut).rejects.toBe('the night is over');
  const all = points.flatMap(({ files }) => files).reduce((sum, { length }) => sum + length, 0);
  const done = points.slice(0, 2).flatMap(({ files }) => files);
  const rest = all - done.reduce((sum, { length }) => sum + length, 0);
  now += day;
  const second = await verify();
  expect(second).toMatchObject({ ok: true, orphans: [], bytesRead: rest });
  expect(second.points.map(({ verifiedAt }) => verifiedAt)).toEqual([
    '2026-01-01T00:00:00.000Z',
    '2026-01-01T00:00:00.000Z',
    undefined,
    undefined,
    undefined,
  ]);
  expect(await verify()).toMatchObject({ ok: true, bytesRead: 0 });

  const [newest] = (await repository.list()).slice(-1);
  const { manifest } = await backupVm(pool.host, repository, { vm: newest!.vmUuid });
  const name = `vms/${newest!.vmUuid}/${manifest.disks[0]!.file ?? manifest.files[0]!.name}`;
  await withFlipped(store, name, 700, async () => {
    expect((await verify()).points.at(-1)).toMatchObject({ restorable: false, damage: [{ file: name }] });
    expect((await verify()).ok).toBe(false); // what is damaged is not taken for seen
  });
  await verify();
  // What is missing or cut is told at once, what rots when it is due.
  const old = `vms/${newest!.vmUuid}/${points[0]!.disks[0]!.file}`;
  const length = (await store.size(old))!;
  await withFlipped(store, old, length - 1000, async () => {
    expect((await verify()).ok).toBe(true);
    now += 31 * day;
    expect((await verify()).points[0]).toMatchObject({ restorable: false, verifiedAt: undefined });
  });
  await store.remove(old);
  expect((await verify()).ok).toBe(false);
  await repository.remove({ vmUuid: newest!.vmUuid, point: manifest.point });
  expect((await store.list('')).names.filter((left) => left.includes(manifest.point))).toEqual([]);
});
