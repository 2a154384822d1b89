import { randomBytes, webcrypto } from 'node:crypto';
import { link, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { backupVm, type PlanBackupOptions, planBackup, runBackup } from '../../src/backup/index.ts';
import { RunError, systemClock } from '../../src/core/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { directoryStore, openRepository } from '../../src/store/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { bundleChild, runChild } from '../support/run-child.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { cutShort, expectOver, expectPoint, hashesOf, makeVm, onHost, type Vm } from './resume-support.ts';

const MIB = 1024 * 1024;
const DAY = 24 * 3600 * 1000;

/** All disks moved, then a failure. */
async function cutAtTheEnd(pool: Pool, vm: Vm, options: Partial<PlanBackupOptions> = {}) {
  let ended = 0;
  const error = await backupVm(pool.host, pool.repository, {
    resumable: true,
    ...options,
    vm: vm.uuid,
    onProgress(event) {
      if (event.kind === 'disk-finished' && ++ended === 2) throw new Error('at the last moment');
    },
  }).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RunError);
}

const snapshots = async ({ host }: Pool) =>
  (await host.listRecords('VM')).filter((one) => one.is_a_snapshot).map(({ uuid }) => uuid);

test('a kept name that is still a link to a published layer (power cut after the commit) costs that layer', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, resumable: true });
  // `.tmp/` is never synced: after a power cut the name that was removed there may be back.
  const disk = vm.disks[0]!.uuid;
  const layer = manifest.disks.find(({ vdiUuid }) => vdiUuid === disk)!.file!;
  await link(join(pool.folder, 'vms', vm.uuid, layer), join(pool.folder, '.tmp', `kept-${vm.uuid}.${disk}.vhd`));
  await backupVm(pool.host, pool.repository, { vm: vm.uuid, resumable: true });
  await expectPoint(pool, point, vm, hashes);
});

test('a run that lost its lease before it keeps its snapshot does not take the base of the point of another run', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  // A moves all, and sleeps right before it marks the snapshot as kept.
  const asleep = Promise.withResolvers<void>();
  const wake = Promise.withResolvers<void>();
  const { repository } = pool;
  const sleepy: typeof repository = {
    ...repository,
    async begin(...args) {
      const writer = await repository.begin(...args);
      const writeDigests = writer.writeDigests.bind(writer);
      let left = 2;
      writer.writeDigests = async (...more) => {
        const file = await writeDigests(...more);
        if (--left === 0) {
          asleep.resolve();
          await wake.promise;
        }
        return file;
      };
      return writer;
    },
  };
  const a = backupVm(pool.host, sleepy, { vm: vm.uuid, resumable: true }).catch((error: unknown) => error);
  await asleep.promise;
  // B takes the lease that ran out, goes on and ends.
  const lease = await repository.acquireLease(vm.uuid, { purpose: 'backup', steal: true });
  const b = await backupVm(pool.host, repository, { vm: vm.uuid, lease });
  await lease.release();
  expect(b.manifest.snapshot.kept).toBe(true);
  wake.resolve();
  expect(await a).toMatchObject({ code: 'LEASE_LOST' });
  expect(await snapshots(pool)).toEqual([b.manifest.snapshot.uuid]);
  const later = manualClock(Date.now() + 2 * DAY);
  const leftovers = await findLeftovers(pool.host, { clock: later }); // what `cleanUp` would remove
  await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(MIB));
  const next = await backupVm(pool.host, repository, { vm: vm.uuid });
  const modes = next.manifest.disks.map(({ mode }) => mode);
  expect({ leftovers, modes }).toEqual({ leftovers: [], modes: ['delta', 'delta'] });
});

test('one failing call while a run is being gone on with does not throw away what was moved', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(20 * MIB));
  await cutShort(pool, vm, 14 * MIB);
  const { snapshot } = (await pool.repository.inspectUnfinished(vm.uuid))!;
  pool.simulator.fault('call-error', { method: 'VDI.list_changed_blocks', code: 'SR_BACKEND_FAILURE_46' });
  const failing = backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expect(failing).rejects.toMatchObject({ xapiCode: 'SR_BACKEND_FAILURE_46' });
  expect(await snapshots(pool)).toContain(snapshot.uuid);
});

test('a snapshot whose adoption failed between the two calls of one mark is found again', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 14 * MIB);
  const { snapshot } = (await pool.repository.inspectUnfinished(vm.uuid))!;
  pool.simulator.fault('call-error', { method: 'VM.set_other_config', code: 'INTERNAL_ERROR' });
  const error = (await backupVm(pool.host, pool.repository, { vm: vm.uuid }).catch(
    (reason: unknown) => reason,
  )) as RunError;
  expect(error).toBeInstanceOf(RunError);
  const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  const left = (await snapshots(pool)).filter((uuid) => uuid !== manifest.snapshot.uuid);
  const later = manualClock(Date.now() + 30 * DAY);
  const found = (await findLeftovers(pool.host, { clock: later })).map(({ uuid }) => uuid);
  expect([[], [snapshot.uuid]]).toContainEqual(left);
  expect(found, 'what clean-up finds in a month').toEqual(left);
  expect(error.report.receipt, 'what the failed run says').not.toEqual([]);
});

test('a failed adoption does not turn the tracking of the run off that can still be gone on with', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 14 * MIB);
  pool.simulator.fault('call-error', { method: 'VDI.set_other_config', code: 'INTERNAL_ERROR' });
  await expect(backupVm(pool.host, pool.repository, { vm: vm.uuid })).rejects.toThrow();
  const unfinished = await pool.repository.inspectUnfinished(vm.uuid);
  const there = (await snapshots(pool)).includes(unfinished?.snapshot.uuid ?? '');
  const tracked = await Promise.all(
    vm.disks.map(async ({ uuid }) => (await pool.host.getRecord('VDI', uuid)).cbt_enabled),
  );
  expect({ there, tracked }).toEqual({ there: true, tracked: [true, true] });
});

test('a run of 25 hours can be gone on with for a day from its end', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  let ahead = 0;
  const clock = { ...systemClock, now: () => systemClock.now() + ahead, sleep: systemClock.sleep };
  const error = await backupVm(pool.host, pool.repository, {
    vm: vm.uuid,
    resumable: true,
    clock,
    onProgress(event) {
      if (event.kind !== 'bytes-moved' || event.movedBytes < 14 * MIB) return;
      ahead = 25 * 3600_000;
      throw new Error('the line is cut');
    },
  }).catch((reason: unknown) => reason as RunError);
  const { report } = error as RunError;
  expect(Date.parse(report.resumableUntil!)).toBeGreaterThan(clock.now());
  expect((await planBackup(pool.host, pool.repository, { vm: vm.uuid, clock })).resume).toBeDefined();
});

test('a run that was killed after its commit is over', { timeout: 60_000 }, async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const { repository } = pool;
  // As a kill between the manifest and the end: nothing after the commit happens.
  const dying: typeof repository = {
    ...repository,
    async begin(...args) {
      const writer = await repository.begin(...args);
      const commit = writer.commit.bind(writer);
      writer.commit = async (...more) => {
        await commit(...more);
        return new Promise(() => {}); // for ever: as good as dead
      };
      return writer;
    },
  };
  void backupVm(pool.host, dying, { vm: vm.uuid, resumable: true, keepForIncremental: false });
  while ((await repository.list()).length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
  await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(32 * MIB));
  const hashes = await hashesOf(pool, vm);
  const plan = await planBackup(pool.host, repository, { vm: vm.uuid, keepForIncremental: false });
  expect(plan.resume).toBeUndefined();
  const lease = await repository.acquireLease(vm.uuid, { purpose: 'backup', steal: true });
  const { point } = await runBackup(pool.host, repository, plan, { lease });
  await lease.release();
  await expectPoint(pool, point, vm, hashes);
});

test('layers are readable for whom they were without resumable', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const modes = async (resumable: boolean) => {
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, resumable, mode: 'full' });
    const paths = manifest.disks.map(({ file }) => join(pool.folder, 'vms', vm.uuid, file!));
    return Promise.all(paths.map(async (path) => ((await stat(path)).mode & 0o777).toString(8)));
  };
  expect(await modes(true)).toEqual(await modes(false));
});

test('a truth check that was asked for is made, even where all was moved before', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(20 * MIB));
  await pool.simulator.writeDisk(vm.uuid, '1', 5 * MIB, randomBytes(2 * MIB));
  await cutAtTheEnd(pool, vm);
  const { report } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, sampleUnchanged: 16 });
  const checked = report.decisions.filter(({ topic }) => topic === 'truth-check').map(({ subject }) => subject);
  expect(checked.sort()).toEqual(vm.disks.map(({ uuid }) => uuid).sort());
});

test('giving a run up does not spoil the base of another repository', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 14 * MIB); // turned tracking on
  await using dir = await makeTempDir();
  const other = await openRepository(await directoryStore(join(dir.path, 'other')));
  await backupVm(pool.host, other, { vm: vm.uuid }); // keeps a base, which needs tracking
  await cutShort(pool, vm, 20 * MIB, { resumable: false });
  const plan = await planBackup(pool.host, other, { vm: vm.uuid });
  expect(plan.disks.map(({ mode, reason }) => ({ mode, reason }))).toMatchObject([
    { mode: 'delta' },
    { mode: 'delta' },
  ]);
});

test('a delta that fell back before the transfer can be gone on with', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(20 * MIB));
  pool.simulator.fault('call-error', { method: 'VDI.list_changed_blocks', code: 'SR_BACKEND_FAILURE_460', times: 2 });
  await cutShort(pool, vm, 17 * MIB);
  const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
  expect(plan.decisions.filter(({ topic }) => topic === 'resume')).toMatchObject([{ choice: 'go on' }]);
});

test('progress never tells more than there is', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 17 * MIB);
  let most = 0;
  await backupVm(pool.host, pool.repository, {
    vm: vm.uuid,
    onProgress(event) {
      if (event.kind === 'bytes-moved') most = Math.max(most, event.movedBytes / event.totalBytes!);
    },
  });
  expect(most).toBeLessThanOrEqual(1);
});

test('retries over NBD are told', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const retries = async (resumable: boolean) => {
    await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(20 * MIB));
    pool.simulator.fault('nbd-cut', { after: 6 * MIB, times: 2 });
    let told = 0;
    const { manifest } = await backupVm(pool.host, pool.repository, {
      vm: vm.uuid,
      resumable,
      onProgress({ kind }) {
        if (kind === 'retrying') told += 1;
      },
    });
    expect(manifest.type).toBe('incr');
    return told > 0;
  };
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(await retries(false)).toBe(true);
  expect(await retries(true)).toBe(true);
});

test('two whole runs: one that slept in its recovery damages the point of the other', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 17 * MIB);
  const asleep = Promise.withResolvers<void>();
  const wake = Promise.withResolvers<void>();
  const real = webcrypto.subtle.digest.bind(webcrypto.subtle);
  let isArmed = true;
  const spy = vi.spyOn(webcrypto.subtle, 'digest').mockImplementation(async (...args) => {
    const digest = await real(...args);
    if (isArmed) {
      isArmed = false;
      asleep.resolve();
      await wake.promise;
    }
    return digest;
  });
  try {
    let isAwake = false;
    const a = backupVm(pool.host, pool.repository, {
      vm: vm.uuid,
      onProgress({ kind }) {
        // It finds out that the lease is lost, as it does within 2.5 minutes: long before a disk of terabytes is moved again.
        if (isAwake && kind === 'bytes-moved') throw new Error('stands for LEASE_LOST');
      },
    }).catch((error: unknown) => error);
    await asleep.promise;
    const lease = await pool.repository.acquireLease(vm.uuid, { purpose: 'backup', steal: true });
    const { point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, lease });
    await lease.release();
    await expectPoint(pool, point, vm, hashes);
    isAwake = true;
    wake.resolve();
    expect(await a).toBeInstanceOf(Error);
    await expectPoint(pool, point, vm, hashes);
  } finally {
    spy.mockRestore();
  }
});

test.each(['snapshot', 'metadata', 'transfer', 'bytes-moved', 'disk-finished', 'commit', 'finish'])(
  'a run that goes on and is killed at %s leaves what a third one can end',
  { timeout: 60_000 },
  async (killAt) => {
    await using dir = await makeTempDir();
    const child = await bundleChild('kill-child', dir.path);
    await using pool = await startPool();
    const { url, username, password, certificate } = pool.simulator;
    const vm = await makeVm(pool);
    await cutShort(pool, vm, 14 * MIB);
    const strategy = 'changed-blocks';
    const orders = { url, username, password, certificate, vm: vm.uuid, folder: pool.folder, strategy, killAt };
    const hashes = await hashesOf(pool, vm);
    expect(await runChild(child, [JSON.stringify(orders)])).toMatchObject({ signal: 'SIGKILL' });
    const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
    const { point, manifest } = await runBackup(pool.host, pool.repository, plan);
    await expectPoint(pool, point, vm, hashes);
    expect(await snapshots(pool)).toEqual([manifest.snapshot.uuid]);
    expect(await readdir(join(pool.folder, '.tmp'))).toEqual([]);
    expect(await findLeftovers(pool.host)).toEqual([]);
    if (killAt !== 'finish') expect(plan.resume).toBeDefined();
  },
);

test('after a kill at any stage the next run goes on where it can, and is right', { timeout: 120_000 }, async () => {
  await using dir = await makeTempDir();
  const child = await bundleChild('kill-child', dir.path);
  await using pool = await startPool();
  const { simulator, host, repository, folder } = pool;
  const { url, username, password, certificate } = simulator;
  const vm = await makeVm(pool);
  const strategy = 'changed-blocks';
  const orders = { url, username, password, certificate, vm: vm.uuid, folder, strategy, resumable: true };
  const resumed: string[] = [];
  for (const killAt of ['snapshot', 'metadata', 'transfer', 'bytes-moved', 'disk-finished', 'commit', 'finish']) {
    await simulator.writeDisk(vm.uuid, '0', 2 * MIB, randomBytes(24 * MIB));
    const before = await hashesOf(pool, vm);
    expect(await runChild(child, [JSON.stringify({ ...orders, killAt })])).toMatchObject({ signal: 'SIGKILL' });
    await simulator.writeDisk(vm.uuid, '1', 5 * MIB, randomBytes(MIB));
    const after = await hashesOf(pool, vm);
    const plan = await planBackup(host, repository, { vm: vm.uuid });
    if (plan.resume !== undefined) resumed.push(killAt);
    const { point } = await runBackup(host, repository, plan);
    await expectPoint(pool, point, vm, plan.resume === undefined ? after : before);
    await expectOver(pool, vm);
    const { snapshot } = await repository.get(point);
    expect(await onHost(pool, vm), `after a kill at ${killAt}`).toEqual({
      snapshots: [snapshot.uuid],
      disks: 2,
      marks: [],
      blocked: {},
      leftovers: [],
    });
  }
  expect(resumed).toEqual(['metadata', 'transfer', 'bytes-moved', 'disk-finished', 'commit']);
});
