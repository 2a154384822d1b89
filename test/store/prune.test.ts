import { describe, expect, test } from 'vitest';
import { hashDisk } from '../../src/disk/index.ts';
import { directoryStore, openRepository, type Store } from '../../src/store/index.ts';
import { openVhd } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { randomFrom, testSeed } from '../support/random.ts';
import { tempDir } from '../support/temp-dir.ts';
import { addToChain, contents, longChain, names, twoChains } from './support/chains.ts';
import { MERGE, mergeFaults } from './support/merge-faults.ts';
import { contentOf, diskOf, idOf, MIB, VDI, VM, writeFull } from './support/points.ts';

const seed = testSeed();
/** How many of the operations of a merge are failed here; `merge-faults.long.test.ts` fails each. */
const SAMPLES = 12;

test('a plan explains every point and changes nothing; running it removes whole chains', async () => {
  const { repository, points, store } = await twoChains();
  const before = await store.list('');
  const plan = await repository.planPrune({ keepLast: 1 });
  expect(plan.points.map(({ action }) => action)).toEqual(['expire', 'expire', 'expire', 'keep', 'keep']);
  expect(plan.expiredBytes).toBe(
    points.slice(0, 3).reduce((sum, { files }) => sum + files.reduce((all, { length }) => all + length, 0), 0),
  );
  expect(await store.list('')).toEqual(before);
  const stored = JSON.parse(JSON.stringify(plan)) as typeof plan;
  const report = await repository.prune(stored);
  expect(names(report.removed).sort()).toEqual(names(points.slice(0, 3)).sort());
  expect(names(await repository.list())).toEqual(names(points.slice(3)));
  expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
  expect(await repository.prune(stored)).toMatchObject({ removed: [], gone: { length: 3 }, kept: [] });
});

test('increments go before what they need, whatever the order in the plan', async () => {
  const { repository, points } = await twoChains();
  const plan = await repository.planPrune({ keepLast: 1 });
  const { removed } = await repository.prune({ ...plan, points: [...plan.points].reverse() });
  expect(names(removed)).toEqual(names([points[2]!, points[1]!, points[0]!]));
});

test('what came to be needed since the plan stays', async () => {
  const { repository, points, clock } = await twoChains();
  const plan = await repository.planPrune({ keepLast: 1 });
  const late = await addToChain(repository, 'incr', points[1], new Date(clock.now()).toISOString());
  const report = await repository.prune(plan);
  expect(names(report.removed)).toEqual([points[2]!.point]);
  expect(report.kept).toEqual([
    expect.objectContaining({ point: points[1]!.point, reason: expect.stringContaining(late.point) as string }),
    expect.objectContaining({ point: points[0]!.point, reason: expect.stringContaining(points[1]!.point) as string }),
  ]);
  expect((await repository.verify('all')).ok).toBe(true);
});

describe('nothing expires', () => {
  test('of a VM with a point that cannot be read, at planning and at running', async () => {
    const { repository, points, store } = await twoChains();
    const plan = await repository.planPrune({ keepLast: 1 });
    const name = `vms/${VM}/points/${points[4]!.point}.json`;
    await store.remove(name);
    await store.write(name, Buffer.from('{'));
    const doubtful = await repository.planPrune({ keepLast: 1 });
    expect(doubtful.unreadable).toEqual([expect.objectContaining({ point: points[4]!.point })]);
    expect(doubtful.points.map(({ action }) => action)).toEqual(['keep', 'keep', 'keep', 'keep']);
    expect(doubtful.points[0]!.reasons).toEqual([expect.objectContaining({ rule: 'unsure' })]);
    expect(await repository.prune(plan)).toMatchObject({ removed: [], kept: { length: 3 } });
    expect(await repository.list()).toHaveLength(5);
  });

  test('of a store that cannot promise that it lists all', async () => {
    const { store, repository } = await twoChains();
    const plan = await repository.planPrune({ keepLast: 1 });
    const unsure: Store = {
      ...bound(store),
      list: async (prefix) => ({ ...(await store.list(prefix)), complete: false }),
    };
    const again = await openRepository(unsure);
    const doubtful = await again.planPrune({ keepLast: 1 });
    expect(doubtful).toMatchObject({ complete: false, expiredBytes: 0 });
    expect(doubtful.points.every(({ action }) => action === 'keep')).toBe(true);
    expect(await again.prune(plan)).toMatchObject({ removed: [], kept: { length: 3 } });
  });

  test('by the plan of another repository, or a policy without a rule', async () => {
    const { repository } = await twoChains();
    const plan = await repository.planPrune({ keepLast: 1 });
    await expect(repository.prune({ ...plan, repositoryId: 'x' })).rejects.toMatchObject({ code: 'PLAN_STALE' });
    await expect(repository.planPrune({})).rejects.toThrow(TypeError);
  });
});

test('cut short at any removal, it leaves only whole points, and goes on when repeated', async () => {
  for (let failAt = 1; ; failAt++) {
    const { repository, store } = await twoChains();
    const plan = await repository.planPrune({ keepLast: 1 });
    let removals = 0;
    const failing: Store = {
      ...bound(store),
      remove: async (name, options) => {
        if (!name.includes('/leases/') && ++removals === failAt) throw new Error('power is gone');
        await store.remove(name, options);
      },
    };
    const cut = await openRepository(failing);
    const outcome: unknown = await cut.prune(plan).catch((error: unknown) => error);
    expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
    if (removals < failAt) break;
    expect(outcome).toBeInstanceOf(Error);
    await repository.prune(plan);
    expect(await repository.list()).toHaveLength(2);
    expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
  }
});

describe('merging', () => {
  test('the oldest point that stays becomes a full in its place, and what it stood on goes', async () => {
    const { repository, points, store } = await longChain();
    const before = await contents(repository, points.slice(3));
    const plan = await repository.planPrune(MERGE);
    expect(plan.points.map(({ action, merge }) => [action, merge])).toEqual([
      ['expire', undefined],
      ['expire', undefined],
      ['expire', undefined],
      ['keep', true],
      ['keep', undefined],
    ]);
    const report = await repository.prune(JSON.parse(JSON.stringify(plan)) as typeof plan);
    expect(names(report.merged)).toEqual([points[3]!.point]);
    expect(report.removed).toHaveLength(3);
    expect(await contents(repository, points.slice(3))).toEqual(before);
    const full = await repository.get(idOf(points[3]!));
    expect(full).toMatchObject({ type: 'full', merged: { base: points[2]!.point }, disks: [{ mode: 'full' }] });
    expect(full.base).toBeUndefined();
    expect(full.merging).toBeUndefined();
    expect((await repository.get(idOf(points[4]!))).base).toBe(points[3]!.point);
    expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
    expect((await store.list('')).names.filter((name) => name.endsWith('.vhd'))).toHaveLength(2);
    expect((await repository.planPrune(MERGE)).points.map(({ action, merge }) => [action, merge])).toEqual([
      ['keep', undefined],
      ['keep', undefined],
    ]);
  });

  test('its file and the next one make a chain for other programs, under the old names', async () => {
    const { repository, points, store } = await longChain();
    await repository.prune(await repository.planPrune(MERGE));
    const [below, above] = points.slice(3).map(({ disks: [disk] }) => disk!);
    const root = await openVhd(await store.open(`vms/${VM}/${below!.file}`));
    const leaf = await openVhd(await store.open(`vms/${VM}/${above!.file}`));
    expect(root.parent).toBeUndefined();
    expect(root.uuid).toBe(below!.vhdUuid);
    expect(leaf.parent).toMatchObject({ uuid: root.uuid, name: `${points[3]!.point}.vhd` });
    await root.close();
    await leaf.close();
  });

  test.each(['before', 'after'] as const)(
    `whatever operation fails %s its work: every point is right, and the next prune ends it (TEST_SEED=${seed})`,
    async (moment) => {
      const { operations, expectNoHarm } = await mergeFaults();
      const random = randomFrom(seed);
      // One out of each part of the prune.
      for (let i = 0; i < SAMPLES; i++) {
        await expectNoHarm(1 + Math.floor(((i + random()) / SAMPLES) * operations), moment);
      }
    },
  );

  test('damage is not merged into a full that would look whole: the point stays, and what it needs', async () => {
    const { repository, points, store } = await longChain();
    const plan = await repository.planPrune(MERGE);
    const name = `vms/${VM}/${points[1]!.files[0]!.name}`;
    await using source = await store.open(name);
    const bytes = new Uint8Array(source.size);
    await source.readInto(bytes, 0);
    const at = bytes.length - 512 - 1; // its last byte of data
    bytes[at] = bytes[at]! ^ 1;
    await store.write(name, bytes, { replace: true });
    const report = await repository.prune(plan);
    const unmerged = { point: points[3]!.point, reason: expect.stringContaining('SHA-256') as string };
    expect(report).toMatchObject({ merged: [], unmerged: [unmerged], removed: [], kept: { length: 3 } });
    expect(await repository.get(idOf(points[3]!))).toEqual(points[3]);
    expect((await repository.verify(idOf(points[3]!), { level: 'content' })).ok).toBe(false);
  });

  test('a point that is gone since the plan cannot be merged, and the rest goes on', async () => {
    const { repository, points } = await longChain();
    const plan = await repository.planPrune(MERGE);
    await repository.remove(idOf(points[4]!));
    await repository.remove(idOf(points[3]!));
    const report = await repository.prune(plan);
    expect(names(report.gone)).toEqual([points[3]!.point]);
    expect(report.removed).toHaveLength(3);
  });

  test('in a folder: who reads the old file goes on to', async () => {
    const { repository, points } = await longChain(await directoryStore(await tempDir()));
    const before = await contents(repository, points.slice(3));
    await using old = await repository.openDisk(idOf(points[4]!), VDI);
    await repository.prune(await repository.planPrune(MERGE));
    expect(await hashDisk(old)).toBe(before[1]);
    expect(await contents(repository, points.slice(3))).toEqual(before);
  });

  test('a full can be built on at once, and a merged point by the next increment', async () => {
    const { repository, points, clock } = await longChain();
    await repository.prune(await repository.planPrune({ keepLast: 1, merge: true }));
    const newest = await repository.get(idOf(points[4]!));
    expect(newest.type).toBe('full');
    const next = await addToChain(repository, 'incr', newest, new Date(clock.now()).toISOString(), 9);
    expect((await repository.chain(idOf(next))).map(({ point }) => point)).toEqual([newest.point, next.point]);
    expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
  });
});

test('an abort between two removals leaves no file of a point that is gone', async () => {
  const { store } = await twoChains();
  const enough = new AbortController();
  const signals = async (name: string, options?: { signal?: AbortSignal | undefined }) => {
    options?.signal?.throwIfAborted();
    await store.remove(name);
    enough.abort(new Error('enough'));
  };
  const repository = await openRepository({ ...bound(store), remove: signals });
  const plan = await repository.planPrune({ keepLast: 1 });
  await expect(repository.prune(plan, { signal: enough.signal })).rejects.toThrow('enough');
  expect(await repository.list()).toHaveLength(4);
  expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
});

test('an abort stops between VMs', async () => {
  const { repository, points } = await twoChains();
  const plan = await repository.planPrune({ keepLast: 1 });
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(repository.prune(plan, { signal })).rejects.toThrow('enough');
  expect(await repository.list()).toHaveLength(points.length);
  expect(idOf(points[0]!)).toMatchObject({ vmUuid: VM });
});

/** The store's own functions, to be replaced one by one. */
function bound(store: Store): Store {
  return {
    label: store.label,
    write: (name, from, options) => store.write(name, from, options),
    open: (name, options) => store.open(name, options),
    size: (name, options) => store.size(name, options),
    list: (prefix, options) => store.list(prefix, options),
    remove: (name, options) => store.remove(name, options),
    stage: (options) => store.stage(options),
    removeAbandoned: (options) => store.removeAbandoned(options),
    close: () => store.close(),
    [Symbol.asyncDispose]: () => store.close(),
  };
}

test('files of no point go with a prune, those that somebody is writing do not', async () => {
  const { repository, store } = await twoChains();
  const writer = await repository.begin(VM, 'full');
  await writeFull(writer, patterned(MIB));
  const half = (await store.list('')).names.filter((name) => name.includes(writer.point));
  expect(half).toHaveLength(1);
  const dead = `vms/${VM}/disks/${VDI}/20250101t000000000z-full-0a0b0c.vhd`;
  await store.write(dead, patterned(100));
  const other = 'vms/4f0c7a52-9d6b-4a83-b1de-3f8f7b1a2c04/points/20250101t000000000z-full-0a0b0c.metadata.json';
  await store.write(other, patterned(100));
  await store.write(`vms/${VM}/notes.txt`, patterned(100)); // not ours to judge

  const plan = await repository.planPrune({ keepLast: 9 });
  expect(plan.leftovers).toEqual([dead, ...half, other].sort());
  expect(await repository.prune(plan)).toMatchObject({ removed: [], cleared: [other] });
  await writer.commit(
    contentOf(writer, { disks: [diskOf({ size: MIB, file: half[0]!.slice(`vms/${VM}/`.length), format: 'vhd' })] }),
  );
  expect(await repository.prune(plan)).toMatchObject({ removed: [], cleared: [dead] });
  expect(await repository.verify('all', { level: 'content' })).toMatchObject({
    ok: true,
    orphans: [`vms/${VM}/notes.txt`],
  });
});
