import { spawnSync } from 'node:child_process';
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import type { ProgressEvent, ProgressListener } from '../../src/core/index.ts';
import {
  copyPoint,
  directoryStore,
  type Lease,
  memoryStore,
  openRepository,
  type Store,
} from '../../src/store/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { idOf, MIB, makePoint, OTHER_VM, VM } from './support/points.ts';
import { sealed } from './support/seal.ts';

const MINUTE = 60_000;

async function setUp() {
  const store = memoryStore();
  const clock = manualClock();
  return { store, clock, repository: await openRepository(store, { clock }) };
}

/** A lease as a process elsewhere would have it: its file, and nobody who renews it. */
async function foreignLease(store: Store, now: number, change: object = {}): Promise<string> {
  const name = `vms/${VM}/leases/00000007.json`;
  const file = {
    format: 1,
    token: '0f0c7a52-9d6b-4a83-b1de-3f8f7b1a2c00',
    purpose: 'backup',
    holder: { hostname: 'elsewhere', pid: 4711, thread: 0 },
    acquiredAt: new Date(now - MINUTE).toISOString(),
    expiresAt: new Date(now + 9 * MINUTE).toISOString(),
    ...change,
  };
  await store.write(name, sealed(file), { replace: true });
  return name;
}

/** The number of a process that has ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['--version']).pid;
}

test('one writer has it at a time, readers need none, another VM is free', async () => {
  const { store, repository } = await setUp();
  expect(await repository.inspectLease(VM)).toBeUndefined();
  const lease = await repository.acquireLease(VM, { purpose: 'backup' });
  const holder = { hostname: hostname(), pid: process.pid };
  expect(await repository.inspectLease(VM)).toMatchObject({ vmUuid: VM, purpose: 'backup', state: 'held', holder });
  await expect(repository.acquireLease(VM)).rejects.toMatchObject({
    code: 'LEASE_HELD',
    retryable: true,
    message: expect.stringContaining(`process ${process.pid} on ${hostname()} (backup, since 2026-01-01T00:00:00.000Z`),
    facts: { vmUuid: VM, purpose: 'backup', holder },
  });
  await expect(repository.begin(VM, 'full')).rejects.toMatchObject({ code: 'LEASE_HELD' });
  await (await repository.acquireLease(OTHER_VM)).release();
  expect((await repository.verify('all', { level: 'content' })).orphans).toEqual([]);
  await lease.assertHeld();
  await lease.release();
  await lease.release();
  await expect(lease.assertHeld()).rejects.toMatchObject({ code: 'LEASE_LOST' });
  expect((await store.list('vms/')).names).toEqual([]);
});

test('who takes what another one left makes durable what that one did; who takes a free one need not', async () => {
  const { store, clock } = await setUp();
  const done: string[] = [];
  const watched: Store = {
    ...store,
    write: async (name, from, options) => {
      if (name.includes('/leases/')) done.push('taken');
      return store.write(name, from, options);
    },
    settle: async (prefix) => {
      done.push(`settled ${prefix}`);
    },
  };
  const repository = await openRepository(watched, { clock });
  await (await repository.acquireLease(VM)).release();
  expect(done).toEqual(['taken']);
  await foreignLease(store, clock.now() - 10 * MINUTE);
  await (await repository.acquireLease(VM)).release();
  expect(done.slice(1)).toEqual([`settled vms/${VM}/`, 'taken']);
});

test('of many who ask at once one gets it', async () => {
  const path = await tempDir();
  const open = async () => openRepository(await directoryStore(path));
  const repositories = await Promise.all(Array.from({ length: 8 }, open));
  for (let round = 0; round < 5; round++) {
    const asked = await Promise.allSettled(repositories.map((repository) => repository.acquireLease(VM)));
    const [lease, ...more] = asked.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
    expect(more).toEqual([]);
    for (const one of asked) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'LEASE_HELD' });
    await lease!.assertHeld();
    await lease!.release();
  }
});

describe('who waits', () => {
  test('gets it when it is given back', async () => {
    const { clock, repository } = await setUp();
    const first = await repository.acquireLease(VM);
    const waiting = repository.acquireLease(VM, { waitMs: 10_000 });
    await clock.untilSleeping(2); // the renewal of the first is the other
    await first.release();
    await clock.advance(1000);
    await (await waiting).assertHeld();
  });

  test('tells whom it waits for, once for each', async () => {
    const { clock, repository } = await setUp();
    const events: ProgressEvent[] = [];
    const first = await repository.acquireLease(VM, { purpose: 'backup' });
    const onProgress: ProgressListener = (event) => events.push(event);
    const waiting = repository.acquireLease(VM, { purpose: 'prune', waitMs: 10_000, onProgress });
    await clock.untilSleeping(2);
    await clock.advance(1000);
    await clock.untilSleeping(2);
    expect(events).toEqual([
      {
        ...{ kind: 'waiting', run: 'prune', vmUuid: VM, waitMs: 10_000 },
        reason: expect.stringMatching(
          `^process ${process.pid} on ${hostname()} \\(backup, since .*, until .* at least\\)$`,
        ),
      },
    ]);
    await first.release();
    const second = await repository.acquireLease(VM, { purpose: 'copy', onProgress });
    await clock.advance(1000);
    await clock.untilSleeping(2);
    expect(events.map((event) => 'reason' in event && event.reason)).toEqual([
      expect.stringContaining('(backup, '),
      expect.stringContaining('(copy, '),
    ]);
    await second.release();
    await clock.advance(1000);
    await (await waiting).release();
    expect(events).toHaveLength(2);
  });

  test('is told when the time is over, and when it is aborted', async () => {
    const { clock, repository } = await setUp();
    await using _ = await repository.acquireLease(VM);
    const waiting = repository.acquireLease(VM, { waitMs: 2500 });
    const outcome = expect(waiting).rejects.toMatchObject({ code: 'LEASE_HELD' });
    for (const ms of [1000, 1000, 500]) {
      await clock.untilSleeping(2);
      await clock.advance(ms);
    }
    await outcome;
    const stop = new AbortController();
    const aborted = repository.acquireLease(VM, { waitMs: 2500, signal: stop.signal });
    await clock.untilSleeping(2);
    stop.abort('enough');
    await expect(aborted).rejects.toBe('enough');
  });
});

test('it is renewed while it is held, however long that takes', async () => {
  const { clock, repository } = await setUp();
  const lease = await repository.acquireLease(VM);
  for (let minute = 0; minute < 60; minute += 2) {
    await clock.untilSleeping(1);
    await clock.advance(2 * MINUTE);
  }
  await clock.untilSleeping(1);
  const { expiresAt } = (await repository.inspectLease(VM))!;
  expect(Date.parse(expiresAt)).toBeGreaterThan(clock.now() + 5 * MINUTE);
  await lease.release();
  expect(clock.sleeping).toBe(0);
});

describe('it is taken from a holder', () => {
  test('that was not heard of in time', async () => {
    const { store, clock, repository } = await setUp();
    const name = await foreignLease(store, clock.now());
    await expect(repository.acquireLease(VM)).rejects.toMatchObject({ code: 'LEASE_HELD' });
    await clock.advance(9 * MINUTE - 1);
    expect(await repository.inspectLease(VM)).toMatchObject({ state: 'held', holder: { hostname: 'elsewhere' } });
    await clock.advance(1);
    expect(await repository.inspectLease(VM)).toMatchObject({ state: 'expired' });
    await using lease = await repository.acquireLease(VM);
    await lease.assertHeld();
    expect(await store.size(name)).toBeUndefined();
  });

  test('whose process on this machine is gone', async () => {
    const { store, clock, repository } = await setUp();
    const dead = { hostname: hostname(), pid: deadPid(), thread: 0 };
    await foreignLease(store, clock.now(), { holder: dead });
    expect(await repository.inspectLease(VM)).toMatchObject({ state: 'abandoned' });
    await (await repository.acquireLease(VM)).release();
  });

  test('that had our process number before us, but not from another thread that may live', async () => {
    const { store, clock, repository } = await setUp();
    const holder = { hostname: hostname(), pid: process.pid, thread: 99 };
    await foreignLease(store, clock.now(), { holder, acquiredAt: new Date().toISOString() });
    expect(await repository.inspectLease(VM)).toMatchObject({ state: 'held' });
    await foreignLease(store, clock.now(), { holder, acquiredAt: '2020-01-01T00:00:00Z' });
    expect(await repository.inspectLease(VM)).toMatchObject({ state: 'abandoned' });
  });

  test('whose file cannot be read', async () => {
    const { store, clock, repository } = await setUp();
    const name = await foreignLease(store, clock.now());
    await using source = await store.open(name);
    const bytes = await readBytes(source, 0, source.size);
    bytes[20]! ^= 1;
    await store.write(name, bytes, { replace: true });
    await (await repository.acquireLease(VM)).release();
  });
});

describe('a holder that lost it', () => {
  async function stolen(): Promise<{ lost: Lease; thief: Lease } & Awaited<ReturnType<typeof setUp>>> {
    const all = await setUp();
    const lost = await all.repository.acquireLease(VM);
    return { ...all, lost, thief: await all.repository.acquireLease(VM, { steal: true }) };
  }

  test('is told by the next look, and by the renewal', async () => {
    const { clock, lost, thief } = await stolen();
    expect(lost.signal.aborted).toBe(false);
    await clock.advance(3 * MINUTE);
    expect(lost.signal.reason).toMatchObject({ code: 'LEASE_LOST', facts: { vmUuid: VM } });
    await expect(lost.assertHeld()).rejects.toBe(lost.signal.reason);
    await lost.release();
    await thief.assertHeld(); // the other's release took nothing away
  });

  test('cannot commit', async () => {
    const { repository, store, lost, thief } = await stolen();
    await expect(makePoint(repository, patterned(MIB), undefined, { lease: lost })).rejects.toMatchObject({
      code: 'LEASE_LOST',
    });
    expect(await repository.list()).toEqual([]);
    await makePoint(repository, patterned(MIB), undefined, { lease: thief });
    await thief.release();
    expect(await repository.verify('all', { level: 'content' })).toMatchObject({ ok: true, orphans: [] });
    expect((await store.list(`vms/${VM}/leases/`)).names).toEqual([]);
  });

  test('does not leave a point that it committed at the moment of losing it', async () => {
    const { store, repository } = await setUp();
    let thief: Lease | undefined;
    const racing: Store = {
      ...store,
      write: async (name, from, options) => {
        if (/points\/[^.]+\.json$/.test(name)) thief = await repository.acquireLease(VM, { steal: true });
        return store.write(name, from, options);
      },
    };
    const committing = makePoint(await openRepository(racing), patterned(MIB));
    await expect(committing).rejects.toMatchObject({ code: 'LEASE_LOST' });
    expect(await repository.list()).toEqual([]);
    await thief!.release();
    expect((await store.list('vms/')).names).toEqual([]);
  });

  test('changes nothing more in a prune', async () => {
    const { store, repository } = await setUp();
    await makePoint(repository, patterned(MIB));
    await makePoint(repository, patterned(MIB, 2));
    const plan = await repository.planPrune({ keepLast: 1 });
    const racing: Store = {
      ...store,
      list: async (prefix, options) => {
        if (prefix === `vms/${VM}/`) await repository.acquireLease(VM, { steal: true });
        return store.list(prefix, options);
      },
    };
    await expect((await openRepository(racing)).prune(plan)).rejects.toMatchObject({ code: 'LEASE_LOST' });
    expect(await repository.list()).toHaveLength(2);
  });
});

test('a prune leaves a VM alone that another one writes, and says so; removals and copies are refused', async () => {
  const { clock, repository } = await setUp();
  const full = await makePoint(repository, patterned(MIB));
  await clock.advance(1);
  await makePoint(repository, patterned(MIB, 2));
  const plan = await repository.planPrune({ keepLast: 1 });
  await using lease = await repository.acquireLease(VM, { purpose: 'backup' });
  expect(await repository.prune(plan)).toMatchObject({
    removed: [],
    kept: [{ ...idOf(full), reason: expect.stringContaining('another writer') }],
  });
  await expect(repository.remove(idOf(full))).rejects.toMatchObject({ code: 'LEASE_HELD' });
  const source = await openRepository(memoryStore());
  const theirs = await makePoint(source, patterned(MIB));
  await expect(copyPoint(source, repository, idOf(theirs))).rejects.toMatchObject({ code: 'LEASE_HELD' });
  expect(await repository.list()).toHaveLength(2);
  await lease.release();
  expect((await repository.prune(plan)).removed).toEqual([idOf(full)]);
});

test('a lease that cannot be removed when it is given back is taken by the next', async () => {
  const { store, clock } = await setUp();
  let failing = true;
  const flaky: Store = {
    ...store,
    remove: async (name) => {
      if (failing) throw new Error('no answer');
      await store.remove(name);
    },
  };
  const repository = await openRepository(flaky, { clock });
  await (await repository.acquireLease(VM)).release();
  expect(await repository.inspectLease(VM)).toMatchObject({ state: 'abandoned' });
  failing = false;
  await (await repository.acquireLease(VM)).release();
  expect(await repository.inspectLease(VM)).toBeUndefined();
});
