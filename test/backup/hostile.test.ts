import { randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { backupVm, planBackup, runBackup } from '../../src/backup/index.ts';
import { type ProgressEvent, type ProgressListener, RunError } from '../../src/core/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';

const MIB = 1024 * 1024;

async function smallVm(pool: Pool, name = 'web') {
  const vm = await pool.simulator.createVm({ name, disks: [{ size: 8 * MIB }, { size: 16 * MIB }] });
  await pool.simulator.writeDisk(vm.uuid, '0', 512, randomBytes(MIB));
  await pool.simulator.writeDisk(vm.uuid, '1', 9 * MIB, randomBytes(2 * MIB));
  return vm;
}

async function snapshotsOf({ host }: Pool): Promise<string[]> {
  return (await host.listRecords('VM')).filter((vm) => vm.is_a_snapshot).map(({ uuid }) => uuid);
}

async function failing(work: Promise<unknown>): Promise<RunError> {
  const error: unknown = await work.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RunError);
  return error as RunError;
}

describe('a listener that throws', () => {
  test.each(['tidy-up', 'tracking', 'snapshot', 'metadata', 'transfer', 'commit'])(
    'at the stage %s ends the run and leaves nothing',
    async (stage) => {
      await using pool = await startPool();
      const vm = await smallVm(pool);
      const cause = new TypeError('of the listener');
      const onProgress = (event: ProgressEvent) => {
        if (event.kind === 'stage' && event.stage === stage) throw cause;
      };
      const error = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid, onProgress }));
      expect(error).toMatchObject({ code: 'RUN_FAILED', cause });
      expect(await pool.repository.list()).toEqual([]);
      expect(await snapshotsOf(pool)).toEqual([]);
      expect(await findLeftovers(pool.host)).toEqual([]);
    },
  );

  test('while bytes move, the same', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === 'bytes-moved' || event.kind === 'disk-finished') throw new Error('enough');
    };
    await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid, onProgress }));
    expect(await pool.repository.list()).toEqual([]);
    expect(await snapshotsOf(pool)).toEqual([]);
  });

  test('after the commit changes nothing any more: the point and its base exist', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === 'stage' && event.stage === 'finish') throw new Error('too late');
    };
    const { manifest, report } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, onProgress });
    expect(report.warnings).toEqual([{ code: 'LISTENER_FAILED', message: 'onProgress threw: too late' }]);
    expect(await snapshotsOf(pool)).toEqual([manifest.snapshot.uuid]);
    const next = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(next.manifest.disks.map(({ mode }) => mode)).toEqual(['delta', 'delta']);
  });
});

test('progress: pairs, never more than the total, ending at it', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  for (const at of [0, 256 * 1024, 5 * MIB]) await pool.simulator.writeDisk(vm.uuid, '1', at, randomBytes(1000));
  const events: ProgressEvent[] = [];
  const onProgress = (event: ProgressEvent) => void events.push(event);
  const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, mergeGap: MIB, onProgress });
  for (const { vdiUuid, bytesMoved, changedBytes = 0 } of manifest.disks) {
    const own = events.filter((event) => 'diskId' in event && event.diskId === vdiUuid);
    expect([own.at(0)?.kind, own.at(-1)?.kind]).toEqual(['disk-started', 'disk-finished']);
    expect(own.filter(({ kind }) => kind === 'disk-started' || kind === 'disk-finished')).toHaveLength(2);
    for (const event of own) {
      if (event.kind === 'bytes-moved') expect(event.movedBytes).toBeLessThanOrEqual(event.totalBytes ?? 0);
    }
    const started = own.find((event) => event.kind === 'disk-started');
    expect(started?.totalBytes).toBe(bytesMoved);
    expect(bytesMoved).toBeGreaterThanOrEqual(changedBytes);
  }
  expect(manifest.disks.map(({ bytesMoved }) => bytesMoved)).toEqual([0, 6 * 64 * 1024 - 64 * 1024 + 64 * 1024]);
});

describe('the host is left as it was found', () => {
  test('tracking that a failed run turned on goes off again, and the receipt says so', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const [kept] = vm.disks;
    await pool.host.callAsync('VDI.enable_cbt', [kept!.vdi]);
    pool.simulator.fault('export-500', { after: 0, path: '/export_raw_vdi' });
    const error = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid }));
    const tracked = await Promise.all(
      vm.disks.map(async ({ uuid }) => (await pool.host.getRecord('VDI', uuid)).cbt_enabled),
    );
    expect(tracked).toEqual([true, false]); // the first was on before
    expect(error.receipt).toContainEqual(
      expect.objectContaining({ kind: 'tracking', uuid: vm.disks[1]!.uuid, state: 'removed' }),
    );
  });

  test('by a run whose VM is destroyed under it', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const error = await failing(
      backupVm(pool.host, pool.repository, {
        vm: vm.uuid,
        onProgress(event) {
          if (event.kind !== 'stage' || event.stage !== 'transfer') return;
          pool.simulator.world.removeObject('VM', vm.ref);
          throw new Error('enough');
        },
      }),
    );
    expect(error.receipt.filter(({ kind }) => kind === 'snapshot')).toMatchObject([{ state: 'removed' }]);
    expect(await snapshotsOf(pool)).toEqual([]);
  });

  test('an old base that cannot be removed is a warning, not the end of all backups', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    pool.simulator.fault('call-error', { method: 'VM.destroy', code: 'OPERATION_BLOCKED', params: ['', 'mine'] });
    const { report } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(report.warnings).toMatchObject([{ code: 'SNAPSHOT_LEFT' }]);
    expect(await snapshotsOf(pool)).toHaveLength(2);
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(await snapshotsOf(pool)).toEqual([manifest.snapshot.uuid]);
  });
});

describe('what others did to the repository', () => {
  test('a layer in the middle is gone: a full of that disk, with the reason', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    for (let step = 0; step < 2; step++) await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const folder = join(pool.folder, 'vms', vm.uuid, 'disks', vm.disks[0]!.uuid);
    const [oldest] = (await readdir(folder)).filter((name) => name.endsWith('.vhd')).sort();
    await rm(join(folder, oldest!));
    const { manifest, point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest.disks.map(({ mode }) => mode)).toEqual(['full', 'delta']);
    expect(manifest.disks[0]?.reason).toContain('broken');
    for (const { uuid } of vm.disks) await (await pool.repository.openDisk(point, uuid)).close();
  });

  test('a point in the middle is gone: a full of all', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const { point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.repository.remove(point, { force: true });
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest.disks.map(({ mode, reason }) => [mode, reason.includes('broken')])).toEqual([
      ['full', true],
      ['full', true],
    ]);
  });

  test('all points are gone: a full, and the base is taken away', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const { point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.repository.remove(point);
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest.type).toBe('full');
    expect(await snapshotsOf(pool)).toEqual([manifest.snapshot.uuid]);
  });
});

describe('several at once', () => {
  test('of two VMs with the same name', async () => {
    await using pool = await startPool();
    const vms = [await smallVm(pool), await smallVm(pool)];
    const results = await Promise.all(vms.map(({ uuid }) => backupVm(pool.host, pool.repository, { vm: uuid })));
    for (const { point } of results) expect((await pool.repository.verify(point, { level: 'content' })).ok).toBe(true);
    await expect(planBackup(pool.host, pool.repository, { vm: 'web' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('of one VM: one goes on, the others are told who it is, or wait for it', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.simulator.writeDisk(vm.uuid, '0', MIB, randomBytes(MIB));
    const waits: ProgressEvent[] = [];
    const onProgress: ProgressListener = (event) => void (event.kind === 'waiting' && waits.push(event));
    const options = { vm: vm.uuid, onProgress };
    const threeWith = (waitMs?: number) =>
      Promise.allSettled([1, 2, 3].map(() => backupVm(pool.host, pool.repository, { ...options, waitMs })));
    const hasty = await threeWith();
    const refused = hasty.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
    expect(refused).toHaveLength(2);
    for (const error of refused) {
      const report = { outcome: 'failed', receipt: [] };
      expect(error).toMatchObject({ code: 'LEASE_HELD', facts: { purpose: 'backup' }, report });
    }
    expect(waits).toEqual([]);
    const patient = await threeWith(60_000);
    const of = { kind: 'waiting', run: 'backup', vmUuid: vm.uuid, waitMs: 60_000 };
    expect(waits.length).toBeGreaterThanOrEqual(2);
    for (const wait of waits) expect(wait).toMatchObject({ ...of, reason: expect.stringMatching(/\(backup, since/) });
    expect(patient.map((result) => result.status === 'fulfilled' && result.value.manifest.type)).toEqual([
      'incr',
      'incr',
      'incr',
    ]);
    const points = await pool.repository.list();
    expect(points).toHaveLength(5);
    for (const point of points) {
      expect((await pool.repository.verify(point, { level: 'content' })).ok).toBe(true);
      await using disk = await pool.repository.openDisk(point, vm.disks[0]!.uuid);
      expect(disk.size).toBe(8 * MIB);
    }
    expect(await snapshotsOf(pool)).toHaveLength(1);
    expect(await findLeftovers(pool.host)).toEqual([]);
  });
});

describe('odd VMs', () => {
  test('without disks', async () => {
    await using pool = await startPool();
    const vm = await pool.simulator.createVm({ name: 'diskless', cd: 'iso' });
    const { manifest, point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest).toMatchObject({ type: 'full', disks: [], snapshot: { kept: false } });
    expect(await snapshotsOf(pool)).toEqual([]);
    expect((await pool.repository.verify(point)).ok).toBe(true);
  });

  test.each(['Halted', 'Paused', 'Suspended'] as const)('%s', async (powerState) => {
    await using pool = await startPool();
    const vm = await pool.simulator.createVm({ powerState, disks: [{ size: 8 * MIB }] });
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest.vm.powerState).toBe(powerState);
    expect(manifest.warnings.map(({ code }) => code)).toEqual(powerState === 'Suspended' ? ['MEMORY_LEFT_OUT'] : []);
    expect((await pool.host.getRecord('VM', vm.uuid)).power_state).toBe(powerState);
  });

  test('names of all kinds, equal ones, a disk named by two rules', async () => {
    await using pool = await startPool();
    const name = '../../etc/passwd\u0007 <&">\n漢字 {{}} %s';
    const vm = await pool.simulator.createVm({
      name,
      disks: [
        { size: 4 * MIB, name },
        { size: 4 * MIB, name },
        { size: 4 * MIB, name },
      ],
    });
    const exclude = ['1', vm.disks[1]!.uuid, () => false];
    const { manifest, point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, exclude });
    expect(manifest.disks.map((disk) => [disk.name, disk.mode])).toEqual([
      [name, 'full'],
      [name, 'excluded'],
      [name, 'full'],
    ]);
    expect((await pool.repository.verify(point, { level: 'content' })).ok).toBe(true);
  });

  test('an excluded disk that vanished, and one that grew, after a plan that went through JSON', async () => {
    await using pool = await startPool();
    const vm = await pool.simulator.createVm({ powerState: 'Halted', disks: [{ size: 4 * MIB }, { size: 4 * MIB }] });
    const plan = JSON.parse(
      JSON.stringify(await planBackup(pool.host, pool.repository, { vm: vm.uuid, exclude: ['1'] })),
    ) as Awaited<ReturnType<typeof planBackup>>;
    await pool.host.callAsync('VDI.destroy', [vm.disks[1]!.vdi]);
    const { manifest } = await runBackup(pool.host, pool.repository, plan);
    expect(manifest.disks.map(({ mode }) => mode)).toEqual(['full', 'excluded']);
    await pool.host.callAsync('VDI.resize', [vm.disks[0]!.vdi, 8 * MIB]);
    const error = await failing(runBackup(pool.host, pool.repository, plan));
    expect(error).toMatchObject({ code: 'PLAN_STALE', retryable: true });
    expect(JSON.parse(JSON.stringify(error.report))).toEqual(error.report);
  });
});
