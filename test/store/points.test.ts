import { describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { type Manifest, memoryStore, openRepository, type Store } from '../../src/store/index.ts';
import { encodeManifest } from '../../src/store/manifest-codec.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { contentOf, idOf, MIB, makePoint, OTHER_VM, VDI, VM } from './support/points.ts';

/** full <- one <- two, and a second full; an hour between them. */
async function fourPoints() {
  const store = memoryStore();
  const clock = manualClock(Date.UTC(2026, 0, 1));
  const repository = await openRepository(store, { clock });
  const add = async (seed: number, base?: Manifest) => {
    await clock.advance(3_600_000);
    return makePoint(repository, patterned(MIB, seed), base);
  };
  const full = await add(1);
  const one = await add(2, full);
  const two = await add(3, one);
  const other = await add(4);
  return { store, clock, repository, full, one, two, other, all: [full, one, two, other] };
}

const manifestOf = ({ point }: Manifest) => `vms/${VM}/points/${point}.json`;
const layerOf = ({ disks }: Manifest) => `vms/${VM}/${disks[0]!.file}`;

async function replace(store: Store, name: string, edit: (bytes: Uint8Array) => Uint8Array): Promise<void> {
  await using source = await store.open(name);
  const bytes = await readBytes(source, 0, source.size);
  await store.remove(name);
  await store.write(name, edit(bytes));
}

const cut = (bytes: Uint8Array) => bytes.subarray(0, bytes.byteLength - 1);
const flip = (at: number) => (bytes: Uint8Array) => {
  const changed = bytes.slice();
  changed[at]! ^= 0xff;
  return changed;
};

describe('latest', () => {
  test('is the newest point of the strategy, or none', async () => {
    const { repository, other } = await fourPoints();
    expect(await repository.latest(VM, 'changed-blocks')).toEqual(other);
    expect(await repository.latest(VM, 'image')).toBeUndefined();
    expect(await repository.latest(OTHER_VM, 'changed-blocks')).toBeUndefined();
  });

  test('refuses a broken newer point, or tells of it and passes it over', async () => {
    const { store, repository, two, other } = await fourPoints();
    await replace(store, manifestOf(other), cut);
    await replace(store, manifestOf(other), (bytes) => bytes.subarray(5));
    await expect(repository.latest(VM, 'changed-blocks')).rejects.toMatchObject({ code: 'POINT_BROKEN' });
    const broken: unknown[] = [];
    const onBroken = (_error: unknown, id: unknown) => broken.push(id);
    expect(await repository.latest(VM, 'changed-blocks', { onBroken })).toEqual(two);
    expect(broken).toEqual([idOf(other)]);
  });

  test('never passes over what a newer library wrote', async () => {
    const { store, repository, other } = await fourPoints();
    await replace(store, manifestOf(other), () => Buffer.from('{"format":{"major":2}}'));
    const latest = repository.latest(VM, 'changed-blocks', { onBroken: () => {} });
    await expect(latest).rejects.toMatchObject({ code: 'REPOSITORY_FORMAT_NEWER' });
  });
});

describe('chain', () => {
  test('is the point with all it builds on, root first', async () => {
    const { repository, full, one, two, other } = await fourPoints();
    expect(await repository.chain(idOf(two))).toEqual([full, one, two]);
    expect(await repository.chain(idOf(other))).toEqual([other]);
  });

  test('names a base that is missing', async () => {
    const { store, repository, one, two } = await fourPoints();
    await store.remove(manifestOf(one));
    const broken = { code: 'POINT_BROKEN', facts: { file: manifestOf(two), base: one.point } };
    await expect(repository.chain(idOf(two))).rejects.toMatchObject(broken);
    await expect(repository.openDisk(idOf(two), VDI)).rejects.toMatchObject(broken);
  });

  test('does not go round in circles', async () => {
    const { store, repository, one, two } = await fourPoints();
    const disks = [{ ...one.disks[0]!, basePoint: two.point }];
    await replace(store, manifestOf(one), () => encodeManifest({ ...one, base: two.point, disks }));
    const broken = { code: 'POINT_BROKEN', message: expect.stringContaining('its own chain') as string };
    await expect(repository.chain(idOf(two))).rejects.toMatchObject(broken);
    await expect(repository.openDisk(idOf(two), VDI)).rejects.toMatchObject(broken);
    expect((await repository.verify('all')).points.length).toBe(4);
  });
});

test('lists by time, over all VMs', async () => {
  const { repository, clock, all } = await fourPoints();
  await clock.advance(1);
  await using writer = await repository.begin(OTHER_VM, 'full');
  await writer.commit(contentOf(writer));
  expect((await repository.list()).map(({ point }) => point)).toEqual([...all.map(({ point }) => point), writer.point]);
  expect((await repository.list({ vm: OTHER_VM })).map(({ point }) => point)).toEqual([writer.point]);
});

describe('remove', () => {
  test('takes a point with its files and nothing else', async () => {
    const { store, repository, other } = await fourPoints();
    const before = (await store.list('')).names;
    await repository.remove(idOf(other));
    const after = (await store.list('')).names;
    expect(after).toEqual(before.filter((name) => !name.includes(other.point)));
    expect(before.length - after.length).toBe(3);
    await expect(repository.remove(idOf(other))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('refuses while another point needs it, and says which', async () => {
    const { repository, full, one, two } = await fourPoints();
    await expect(repository.remove(idOf(full))).rejects.toMatchObject({
      code: 'POINT_NEEDED',
      facts: { neededBy: [one.point] },
    });
    for (const point of [two, one, full]) await repository.remove(idOf(point));
    expect(await repository.list()).toHaveLength(1);
  });

  test('refuses while nobody knows who needs it, unless it is forced', async () => {
    const { store, repository, two, other } = await fourPoints();
    await replace(store, manifestOf(two), cut);
    await replace(store, manifestOf(two), (bytes) => bytes.subarray(5));
    await expect(repository.remove(idOf(other))).rejects.toMatchObject({ code: 'POINT_BROKEN' });
    await repository.remove(idOf(two)); // the broken one itself goes: nobody needs it
    await repository.remove(idOf(other));
    expect(await repository.list()).toHaveLength(2);
  });

  test('refuses on a listing that may not be complete, unless it is forced', async () => {
    const { store, other } = await fourPoints();
    const partial: Store = { ...store, list: async (prefix) => ({ ...(await store.list(prefix)), complete: false }) };
    const repository = await openRepository(partial);
    await expect(repository.remove(idOf(other))).rejects.toMatchObject({ code: 'POINT_NEEDED' });
    await repository.remove(idOf(other), { force: true });
    expect(await repository.list()).toHaveLength(3);
  });

  test('takes the manifest first, and a second try takes the rest', async () => {
    const { store, other } = await fourPoints();
    let removals = 0;
    const failing: Store = {
      ...store,
      remove: async (name) => {
        if (++removals === 2) throw new Error('no answer');
        await store.remove(name);
      },
    };
    const repository = await openRepository(failing);
    await expect(repository.remove(idOf(other))).rejects.toThrow('no answer');
    expect(await repository.list()).toHaveLength(3);
    expect((await repository.verify('all')).orphans).toHaveLength(2);
    await repository.remove(idOf(other));
    expect((await repository.verify('all')).orphans).toEqual([]);
  });
});

describe('a removal and a commit at the same time', () => {
  test('the commit is first: the base stays', async () => {
    const { store, repository, two } = await fourPoints();
    let newest: Manifest | undefined;
    const racing: Store = {
      ...store,
      remove: async (name, options) => {
        if (name === manifestOf(two)) {
          await using lease = await repository.acquireLease(VM, { steal: true });
          newest = await makePoint(repository, patterned(MIB, 9), two, { lease });
        }
        await store.remove(name, options);
      },
    };
    const removing = (await openRepository(racing)).remove(idOf(two));
    await expect(removing).rejects.toMatchObject({ code: 'POINT_NEEDED' });
    expect(newest).toBeDefined();
    expect((await repository.verify('all')).ok).toBe(true);
    expect(await repository.list()).toHaveLength(5);
  });

  test('the removal is first: the point is not there', async () => {
    const { store, repository, two } = await fourPoints();
    const racing: Store = {
      ...store,
      write: async (name, from, options) => {
        const isManifest = /points\/[^.]+\.json$/.test(name);
        if (isManifest) await repository.remove(idOf(two), { force: true });
        return store.write(name, from, options);
      },
    };
    const committing = makePoint(await openRepository(racing), patterned(MIB, 9), two);
    await expect(committing).rejects.toMatchObject({ code: 'POINT_BROKEN' });
    expect((await repository.verify('all')).ok).toBe(true);
    expect(await repository.list()).toHaveLength(3);
    expect((await repository.verify('all')).orphans).toEqual([]);
  });
});

describe('metadata', () => {
  test('is checked before it is believed', async () => {
    const { store, repository, full } = await fourPoints();
    const name = `vms/${VM}/points/${full.point}.metadata.json`;
    expect(await repository.readMetadata(idOf(full))).toEqual({ vm: { name: 'web' } });
    // Another letter is JSON still: only the hash tells.
    await replace(store, name, (bytes) => Buffer.from(Buffer.from(bytes).toString().replace('web', 'wet')));
    await expect(repository.readMetadata(idOf(full))).rejects.toMatchObject({
      code: 'POINT_BROKEN',
      facts: { file: name, field: 'SHA-256' },
    });
    await replace(store, name, cut);
    await expect(repository.readMetadata(idOf(full))).rejects.toThrow(/length: expected/);
    await store.remove(name);
    await expect(repository.readMetadata(idOf(full))).rejects.toMatchObject({
      code: 'POINT_BROKEN',
      facts: { file: name },
    });
  });

  test('files are opened by their role', async () => {
    const { repository, full } = await fourPoints();
    await using source = await repository.openFile(idOf(full), 'metadata');
    expect(source.size).toBe('{"vm":{"name":"web"}}'.length);
    await expect(repository.openFile(idOf(full), 'image')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('verify', () => {
  test('finds nothing where nothing is wrong, and reads only as much as it was told', async () => {
    const { repository, all, full, one, two } = await fourPoints();
    const structure = await repository.verify('all');
    expect(structure).toMatchObject({ level: 'structure', ok: true, orphans: [], bytesRead: 0 });
    expect(structure.points.map(({ point }) => point)).toEqual(all.map(({ point }) => point));
    expect(structure.points[0]).toEqual({
      ...idOf(full),
      restorable: true,
      damage: [],
      brokenBases: [],
      dependents: [one.point, two.point],
    });
    const moved: number[] = [];
    const content = await repository.verify('all', {
      level: 'content',
      onProgress: (event) => event.kind === 'bytes-moved' && moved.push(event.movedBytes),
    });
    const bytes = all.flatMap(({ files }) => files).reduce((sum, { length }) => sum + length, 0);
    expect(content).toMatchObject({ level: 'content', ok: true, bytesRead: bytes });
    expect(moved.length).toBeGreaterThan(8);
    expect(JSON.parse(JSON.stringify(content))).toEqual(content);
  });

  test('of one point looks at it and all it builds on', async () => {
    const { repository, full, one } = await fourPoints();
    const { points } = await repository.verify(idOf(one));
    expect(points.map(({ point }) => point)).toEqual([full.point, one.point]);
    const unknown = { vmUuid: VM, point: '20200101t000000000z-full-000000' };
    await expect(repository.verify(unknown)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test.each<[string, 'structure' | 'content', (bytes: Uint8Array) => Uint8Array, string]>([
    ['a layer that was cut', 'structure', cut, 'POINT_BROKEN'],
    ['a layer whose block table is damaged', 'structure', flip(2048), 'VHD_'],
    ['a layer whose parent is another', 'structure', (bytes) => flip(512 + 40)(bytes), 'VHD_'],
    ['a layer with a byte changed', 'content', flip((2 * MIB) / 2), 'POINT_BROKEN'],
  ])('tells of %s, and whom it reaches', async (_, level, edit, code) => {
    const { store, repository, full, one, two, other } = await fourPoints();
    await replace(store, layerOf(one), edit);
    const { ok, points } = await repository.verify('all', { level });
    expect(ok).toBe(false);
    const by = (manifest: Manifest) => points.find(({ point }) => point === manifest.point)!;
    expect(by(one)).toMatchObject({ restorable: false, brokenBases: [], dependents: [two.point] });
    expect(by(one).damage).toHaveLength(1);
    expect(by(one).damage[0]).toMatchObject({ file: layerOf(one), code: expect.stringContaining(code) as string });
    expect(by(two)).toMatchObject({ restorable: false, damage: [], brokenBases: [one.point], dependents: [] });
    expect(by(full)).toMatchObject({ restorable: true, damage: [] });
    expect(by(other)).toMatchObject({ restorable: true, damage: [] });
  });

  test('does not see at level structure what only the content shows', async () => {
    const { store, repository, one } = await fourPoints();
    await replace(store, layerOf(one), flip(MIB));
    expect((await repository.verify('all')).ok).toBe(true);
  });

  test('tells of files and bases that are missing and of manifests that cannot be read', async () => {
    const { store, repository, full, one, two, other } = await fourPoints();
    await store.remove(layerOf(full));
    await store.remove(manifestOf(one));
    await replace(store, manifestOf(other), (bytes) => bytes.subarray(5));
    const { points, orphans } = await repository.verify('all');
    expect(points.map(({ point, restorable }) => [point, restorable])).toEqual([
      [full.point, false],
      [two.point, false],
      [other.point, false],
    ]);
    expect(points[0]!.damage).toMatchObject([{ file: layerOf(full), code: 'POINT_BROKEN' }]);
    expect(points[1]).toMatchObject({ damage: [], brokenBases: [one.point] });
    expect(points[2]!.damage).toMatchObject([{ file: manifestOf(other), code: 'POINT_BROKEN' }]);
    expect(orphans).toEqual([layerOf(one), `vms/${VM}/points/${one.point}.metadata.json`]);
  });

  test('a base of another content with a good look is found by its uuid', async () => {
    const { store, repository, full, one, other } = await fourPoints();
    await using source = await store.open(layerOf(other));
    const foreign = await readBytes(source, 0, source.size);
    await replace(store, layerOf(full), () => foreign);
    const { points } = await repository.verify(idOf(one));
    expect(points[0]!.damage).toMatchObject([{ file: layerOf(full), code: 'POINT_BROKEN' }]);
    expect(points[1]).toMatchObject({ restorable: false, brokenBases: [full.point] });
  });

  test('an abort is no damage', async () => {
    const { repository } = await fourPoints();
    const abort = new AbortController();
    const reason = new Error('enough');
    const onProgress = () => abort.abort(reason);
    const verifying = repository.verify('all', { level: 'content', signal: abort.signal, onProgress });
    await expect(verifying).rejects.toBe(reason);
  });
});
