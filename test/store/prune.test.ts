import { describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { type Manifest, memoryStore, openRepository, type Repository, type Store } from '../../src/store/index.ts';
import { vhdStream } from '../../src/vhd/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { contentOf, diskOf, idOf, MIB, VDI, VM, writeFull } from './support/points.ts';

const DAY = 24 * 3600 * 1000;

/** A full and increments on it, a day apart; then another such chain. */
async function twoChains(store: Store = memoryStore()) {
  const clock = manualClock(Date.parse('2026-11-01T00:00:00Z'));
  const repository = await openRepository(store, { clock });
  const points: Manifest[] = [];
  for (const type of ['full', 'incr', 'incr', 'full', 'incr'] as const) {
    await clock.advance(DAY);
    points.push(await addPoint(repository, type, points.at(-1), new Date(clock.now()).toISOString()));
  }
  return { repository, points, clock, store };
}

async function addPoint(repository: Repository, type: 'full' | 'incr', base: Manifest | undefined, createdAt: string) {
  const writer = await repository.begin(VM, type);
  if (type === 'full') {
    const disk = await writeFull(writer, patterned(MIB, 1));
    return writer.commit(contentOf(writer, { disks: [disk], createdAt }));
  }
  const below = base!.disks[0]!;
  const parent = { uuid: below.vhdUuid!, name: `${base!.point}.vhd` };
  const vhd = await vhdStream(memoryDisk(patterned(MIB, 2)), { type: 'differencing', parent });
  const { name: file } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), vhd);
  const entry = { size: MIB, file, format: 'vhd', mode: 'delta', vhdUuid: vhd.uuid, basePoint: base!.point } as const;
  return writer.commit(contentOf(writer, { disks: [diskOf(entry)], base: base!.point, createdAt }));
}

const names = (ids: readonly { readonly point: string }[]) => ids.map(({ point }) => point);

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
  const late = await addPoint(repository, 'incr', points[1], new Date(clock.now()).toISOString());
  const report = await repository.prune(plan);
  expect(names(report.removed)).toEqual([points[2]!.point]);
  expect(report.kept).toEqual([
    expect.objectContaining({ point: points[0]!.point, reason: expect.stringContaining(points[1]!.point) as string }),
    expect.objectContaining({ point: points[1]!.point, reason: expect.stringContaining(late.point) as string }),
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
        if (++removals === failAt) throw new Error('power is gone');
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
