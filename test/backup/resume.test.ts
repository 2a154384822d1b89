import { randomBytes } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { backupVm, discardUnfinished, type PlanBackupOptions, planBackup, runBackup } from '../../src/backup/index.ts';
import { RunError } from '../../src/core/index.ts';
import { cleanUp, findLeftovers } from '../../src/snapshot/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { cutShort, expectOver, expectPoint, hashesOf, makeVm, onHost, type Vm } from './resume-support.ts';

const MIB = 1024 * 1024;
const DAY = 24 * 3600 * 1000;

const snapshotCalls = ({ simulator }: Pool) =>
  simulator.log.entries.filter(({ method }) => method.endsWith('VM.snapshot')).length;

test.each(['vhd', 'raw'] as const)(
  'a full by %s that was cut short goes on over NBD, and is of its own moment',
  { timeout: 60_000 },
  async (transport) => {
    await using pool = await startPool();
    const vm = await makeVm(pool);
    const hashes = await hashesOf(pool, vm);
    const { report } = await cutShort(pool, vm, 17 * MIB, { transport });
    expect(report.receipt).toContainEqual(expect.objectContaining({ kind: 'snapshot', state: 'kept' }));
    expect(report.receipt).toContainEqual(expect.objectContaining({ kind: 'point', state: 'removed' }));
    expect(Date.parse(report.resumableUntil!)).toBeGreaterThanOrEqual(Date.parse(report.startedAt) + DAY);
    expect(await pool.repository.list()).toEqual([]);
    const unfinished = await pool.repository.inspectUnfinished(vm.uuid);
    expect(await onHost(pool, vm)).toEqual({
      snapshots: [unfinished!.snapshot.uuid],
      disks: 2,
      marks: [],
      blocked: {},
      leftovers: [],
    });

    await pool.simulator.writeDisk(vm.uuid, '0', 0, randomBytes(32 * MIB)); // the guest goes on
    const options = { vm: vm.uuid, transport };
    const plan = await planBackup(pool.host, pool.repository, options);
    expect(plan.resume).toMatchObject({ snapshotUuid: unfinished!.snapshot.uuid });
    const calls = snapshotCalls(pool);
    const seen: number[] = [];
    const {
      point,
      manifest,
      report: second,
    } = await runBackup(pool.host, pool.repository, plan, {
      onProgress(event) {
        if (event.kind === 'bytes-moved' && event.diskId === vm.disks[0]!.uuid) seen.push(event.movedBytes);
      },
    });
    expect(snapshotCalls(pool)).toBe(calls);
    await expectPoint(pool, point, vm, hashes);
    expect(manifest).toMatchObject({ type: 'full', snapshot: { uuid: unfinished!.snapshot.uuid, kept: true } });
    expect(manifest.createdAt).toBe(unfinished!.snapshot.takenAt);
    const [first] = manifest.disks;
    expect(first).toMatchObject({ mode: 'full', transport: 'nbd', trackingEnabled: true });
    expect(first!.digest).toBeDefined();
    expect(first!.bytesMoved).toBeGreaterThan(0);
    expect(first!.bytesMoved).toBeLessThanOrEqual(18 * MIB);
    expect(seen[0]).toBeGreaterThan(14 * MIB);
    expect(seen.at(-1)).toBe(32 * MIB);
    expect(second.decisions).toContainEqual(expect.objectContaining({ topic: 'resume', subject: vm.disks[0]!.uuid }));
    await expectOver(pool, vm);

    const next = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(next.manifest.type).toBe('incr');
    await expectPoint(pool, next.point, vm, await hashesOf(pool, vm));
    expect(await onHost(pool, vm)).toMatchObject({ snapshots: [next.manifest.snapshot.uuid], disks: 2, leftovers: [] });
  },
);

test('an increment that was cut short goes on, even if it is cut short again', { timeout: 60_000 }, async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const base = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB, randomBytes(20 * MIB));
  await pool.simulator.writeDisk(vm.uuid, '1', 512, randomBytes(MIB));
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 8 * MIB);
  await pool.simulator.writeDisk(vm.uuid, '0', 9 * MIB, randomBytes(5 * MIB));
  const { report } = await cutShort(pool, vm, 14 * MIB, { resumable: undefined });
  expect(report.resumableUntil).toBeDefined();
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(manifest).toMatchObject({ type: 'incr', base: base.point.point });
  expect(manifest.disks[0]!.bytesMoved).toBeLessThanOrEqual(10 * MIB);
  expect(manifest.disks[1]!.bytesMoved).toBe(0); // it was whole
  await expectPoint(pool, point, vm, hashes);
  await expectOver(pool, vm);
  const next = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expectPoint(pool, next.point, vm, await hashesOf(pool, vm));
});

test('what was asked for before counts as done: the first run and the second make one whole point', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 10 * MIB, {}, 1); // the first disk may be whole, or under way
  const { manifest, point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, digestDisks: true });
  await expectPoint(pool, point, vm, hashes);
  expect(manifest.disks.map(({ mode }) => mode)).toEqual(['full', 'full']);
});

test('a failure before anything is moved leaves what there was to go on with', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const base = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB, randomBytes(20 * MIB));
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 8 * MIB);
  for (const method of ['VDI.list_changed_blocks', 'VM.set_other_config', 'VDI.get_nbd_info', 'VDI.set_other_config']) {
    const disarm = pool.simulator.fault('call-error', { method, code: 'INTERNAL_ERROR', params: ['for once'] });
    await pool.simulator.writeDisk(vm.uuid, '1', 0, randomBytes(MIB));
    const error = await backupVm(pool.host, pool.repository, { vm: vm.uuid }).catch((reason: unknown) => reason);
    disarm();
    expect(error, method).toBeInstanceOf(RunError);
    expect((error as RunError).report.resumableUntil, method).toBeDefined();
    expect((await onHost(pool, vm)).leftovers).toEqual([]);
  }
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(manifest.base).toBe(base.point.point);
  await expectPoint(pool, point, vm, hashes);
  await expectOver(pool, vm);
});

test('sampled blocks are compared again, and files have the mode that others have', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const first = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB, randomBytes(20 * MIB));
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 8 * MIB, { sampleUnchanged: 5 });
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, sampleUnchanged: 5 });
  await expectPoint(pool, point, vm, hashes);
  expect(manifest.decisions.filter(({ topic }) => topic === 'truth-check')).not.toEqual([]);
  const modeOf = async (name: string) => (await stat(join(pool.folder, 'vms', vm.uuid, name))).mode & 0o777;
  const [was, is] = await Promise.all([first.manifest, manifest].map(({ disks }) => modeOf(disks[0]!.file!)));
  expect(is).toBe(was);
});

test('a host that answers a full with differences is not believed', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB, randomBytes(MIB));
  const base = manifest.disks[0]!.snapshotVdiUuid!;
  const { host } = pool;
  const wrong = Object.assign(Object.create(host) as typeof host, {
    exportDisk: ((ref, options) => host.exportDisk(ref, { ...options, base })) as typeof host.exportDisk,
  });
  const options = { vm: vm.uuid, mode: 'full', exclude: ['1'] } as const;
  for (const resumable of [false, true]) {
    await expect(backupVm(wrong, pool.repository, { ...options, resumable })).rejects.toMatchObject({
      code: 'TRANSFER_FAILED',
      message: expect.stringMatching(/expected a dynamic VHD, got a differencing one/),
    });
  }
  expect(await pool.repository.list()).toHaveLength(1);
});

test('an abort is a way to be cut short', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  const stop = new AbortController();
  const error = await backupVm(pool.host, pool.repository, {
    vm: vm.uuid,
    resumable: true,
    signal: stop.signal,
    onProgress(event) {
      if (event.kind === 'bytes-moved' && event.movedBytes > 8 * MIB) stop.abort();
    },
  }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: 'ABORTED', report: { resumableUntil: expect.any(String) } });
  const { point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expectPoint(pool, point, vm, hashes);
});

test('without NBD the rest of a full comes out of an export that begins anew', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  await cutShort(pool, vm, 17 * MIB);
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(manifest.disks[0]).toMatchObject({ mode: 'full', transport: 'vhd', bytesMoved: 32 * MIB });
  await expectPoint(pool, point, vm, hashes);
  await expectOver(pool, vm);
});

test('a failure after all was moved loses no byte that had to cross the network', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  const publishing = { vm: vm.uuid, resumable: true };
  let ended = 0;
  const error = await backupVm(pool.host, pool.repository, {
    ...publishing,
    onProgress(event) {
      if (event.kind === 'disk-finished' && ++ended === 2) throw new Error('at the last moment');
    },
  }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ report: { resumableUntil: expect.any(String) } });
  const { point, manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(manifest.disks.map(({ bytesMoved }) => bytesMoved)).toEqual([0, 0]);
  await expectPoint(pool, point, vm, hashes);
});

test('a failing commit leaves a run that can be gone on with, and its snapshot is no base', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const hashes = await hashesOf(pool, vm);
  const { repository } = pool;
  const refusing: typeof repository = {
    ...repository,
    async begin(...args) {
      const writer = await repository.begin(...args);
      writer.commit = async () => {
        throw new Error('no space left for the manifest');
      };
      return writer;
    },
  };
  const error = await backupVm(pool.host, refusing, { vm: vm.uuid, resumable: true }).catch(
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ message: 'no space left for the manifest' });
  const { snapshots } = await onHost(pool, vm);
  expect((await planBackup(pool.host, repository, { vm: vm.uuid })).resume?.snapshotUuid).toBe(snapshots[0]);
  const { point } = await backupVm(pool.host, repository, { vm: vm.uuid });
  await expectPoint(pool, point, vm, hashes);
  await expectOver(pool, vm);
});

describe('begins anew, says why, and leaves nothing of the old', () => {
  const cases: [string, RegExp, (pool: Pool, vm: Vm) => Promise<Partial<PlanBackupOptions> | undefined>][] = [
    ['when told to', /not to be/, async () => ({ resume: false })],
    [
      'where a disk has grown',
      /has grown since/,
      async ({ host }, vm) => {
        await host.call('VM.hard_shutdown', (await host.getVm(vm.uuid)).ref);
        await host.call('VDI.resize', (await host.getRecord('VDI', vm.disks[1]!.uuid)).ref, String(26 * MIB));
        return undefined;
      },
    ],
    ['where a disk is excluded now', /the disks are not the same/, async () => ({ exclude: ['1'] })],
    [
      'where the snapshot is gone',
      /its snapshot is gone/,
      async ({ host }) => {
        const snapshot = (await host.listRecords('VM')).find((one) => one.is_a_snapshot)!;
        for (const { vdi } of await host.listDisks(snapshot.ref)) await host.call('VDI.destroy', vdi.ref);
        await host.call('VM.destroy', snapshot.ref);
        return undefined;
      },
    ],
    [
      'where its record is damaged',
      /^$/,
      async ({ folder }, vm) => {
        const path = join(folder, 'vms', vm.uuid, 'unfinished.json');
        await writeFile(path, (await readFile(path, 'utf8')).replace('"full"', '"delta"'));
        return undefined;
      },
    ],
    ['where its time has run out', /its time ran out/, async () => ({ clock: manualClock(Date.now() + 2 * DAY) })],
  ];
  test.each(cases)('%s', async (_, why, change) => {
    await using pool = await startPool();
    const vm = await makeVm(pool);
    await cutShort(pool, vm, 17 * MIB);
    const { snapshot } = (await pool.repository.inspectUnfinished(vm.uuid))!;
    const options = { vm: vm.uuid, ...(await change(pool, vm)) };
    const isKnown = (await pool.repository.inspectUnfinished(vm.uuid)) !== undefined;
    const plan = await planBackup(pool.host, pool.repository, options);
    expect(plan.resume).toBeUndefined();
    const said = plan.decisions.filter(({ topic }) => topic === 'resume');
    expect(said).toEqual(
      isKnown ? [{ subject: 'vm', topic: 'resume', choice: 'begin anew', reason: expect.stringMatching(why) }] : [],
    );
    const { manifest, point } = await runBackup(pool.host, pool.repository, plan, { clock: options.clock });
    expect(manifest.snapshot.uuid).not.toBe(snapshot.uuid);
    expect((await onHost(pool, vm)).snapshots).toEqual([manifest.snapshot.uuid]);
    expect((await pool.repository.verify(point, { level: 'content' })).ok).toBe(true);
    if (isKnown) await expectOver(pool, vm);
    else expect(await pool.repository.inspectUnfinished(vm.uuid)).toBeUndefined(); // nobody knows what files it had
  });

  test('where an increment was cut short and a full is wanted', async () => {
    await using pool = await startPool();
    const vm = await makeVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB, randomBytes(20 * MIB));
    await cutShort(pool, vm, 8 * MIB);
    const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid, mode: 'full' });
    expect(plan.type).toBe('full');
    expect(plan.resume).toBeUndefined();
    const { point } = await runBackup(pool.host, pool.repository, plan);
    await expectPoint(pool, point, vm, await hashesOf(pool, vm));
    await expectOver(pool, vm);
  });
});

test('a run that is not to be gone on with leaves nothing, even if it went on with another', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 10 * MIB);
  const { report } = await cutShort(pool, vm, 20 * MIB, { resumable: false });
  expect(report.resumableUntil).toBeUndefined();
  expect(await onHost(pool, vm)).toMatchObject({ snapshots: [], disks: 0, leftovers: [] });
  // Tracking was turned on by the first run, and somebody else may have built on it since.
  for (const { uuid } of vm.disks) expect((await pool.host.getRecord('VDI', uuid)).cbt_enabled).toBe(true);
  await expectOver(pool, vm);
});

test('is given up by name, and nothing is left but tracking', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  expect(await discardUnfinished(pool.host, pool.repository, vm.uuid)).toEqual([]);
  await cutShort(pool, vm, 10 * MIB);
  const receipt = await discardUnfinished(pool.host, pool.repository, vm.uuid);
  expect(receipt).toMatchObject([{ kind: 'snapshot', state: 'removed' }]);
  expect(await onHost(pool, vm)).toMatchObject({ snapshots: [], disks: 0, marks: [], leftovers: [] });
  await expectOver(pool, vm);
});

test('a snapshot whose time has run out is a leftover', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 10 * MIB, { resumeWithinMs: 3600_000 });
  const later = (ms: number) => findLeftovers(pool.host, { clock: manualClock(Date.now() + ms) });
  expect(await later(3500_000)).toEqual([]);
  const leftovers = await later(3700_000);
  expect(leftovers).toMatchObject([{ kind: 'snapshot' }]);
  const clock = manualClock(Date.now() + 3700_000);
  expect(await cleanUp(pool.host, leftovers, { clock })).toMatchObject([{ removed: true }]);
});

test('another repository does not touch it', async () => {
  await using pool = await startPool();
  await using other = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 10 * MIB);
  const { snapshot } = (await pool.repository.inspectUnfinished(vm.uuid))!;
  const { manifest } = await backupVm(pool.host, other.repository, { vm: vm.uuid });
  expect((await onHost(pool, vm)).snapshots.sort()).toEqual([snapshot.uuid, manifest.snapshot.uuid].sort());
  const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
  expect(plan.resume?.snapshotUuid).toBe(snapshot.uuid);
});

test('a plan to go on is stale once somebody else has done so', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  await cutShort(pool, vm, 10 * MIB);
  const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expect(runBackup(pool.host, pool.repository, plan)).rejects.toMatchObject({ code: 'PLAN_STALE' });
  expect((await onHost(pool, vm)).snapshots).toHaveLength(1);
});

test('options that cannot be are refused', async () => {
  await using pool = await startPool();
  const vm = await makeVm(pool);
  const plan = (options: Partial<PlanBackupOptions>) =>
    planBackup(pool.host, pool.repository, { vm: vm.uuid, ...options });
  await expect(plan({ strategy: 'image', resumable: true })).rejects.toThrow(TypeError);
  for (const resumeWithinMs of [0, -1, Number.NaN, 8 * DAY]) {
    await expect(plan({ resumable: true, resumeWithinMs })).rejects.toThrow(RangeError);
  }
});
