import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type BackupPlan, backupVm, planBackup, runBackup } from '../../src/backup/index.ts';
import type { ProgressEvent, RunError } from '../../src/core/index.ts';
import { openRepository, type Repository } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { expectNextRunRight, fullAfter, MIB, NOTHING, smallVm, traces, type Vm } from './support.ts';

describe('a full that fails leaves nothing, and the next run works', () => {
  const path = '/export_raw_vdi';
  test.each<[string, string, (pool: Pool) => void]>([
    [
      'the connection dropped in the middle',
      'TRANSFER_FAILED',
      ({ simulator }) => simulator.fault('export-cut', { after: 3 * MIB, path }),
    ],
    [
      'a stream cut while the host believes that all went well',
      'TRANSFER_CUT',
      ({ simulator }) => simulator.fault('export-cut', { after: 3 * MIB, path, taskSucceeds: true }),
    ],
    [
      'a 500 inside a 200',
      'TRANSFER_FAILED',
      ({ simulator }) => simulator.fault('export-500', { after: 3 * MIB, path }),
    ],
    [
      'a 500 in the place of the data',
      'TRANSFER_FAILED',
      ({ simulator }) => simulator.fault('export-500', { after: 0, path }),
    ],
    [
      'a refused snapshot',
      'TASK_FAILED',
      ({ simulator }) =>
        simulator.fault('call-error', {
          method: 'VM.snapshot',
          code: 'SR_BACKEND_FAILURE_44',
          params: ['', 'no space', ''],
        }),
    ],
    [
      'metadata that cannot be exported',
      'TRANSFER_FAILED',
      ({ simulator }) => simulator.fault('export-500', { after: 0, path: '/export_metadata' }),
    ],
  ])('%s', async (_, code, arm) => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    arm(pool);
    const error = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid }));
    expect(error.code).toBe(code);
    expect(error.report).toMatchObject({ run: 'backup', outcome: 'failed', vm: { uuid: vm.uuid } });
    expect(error.receipt.filter(({ state }) => state === 'left')).toEqual([]);
    expect(JSON.stringify(error.report) + error.stack).not.toMatch(/OpaqueRef:[0-9a-f]{8}/);
    expect(await pool.repository.list()).toEqual([]);
    expect(await traces(pool, vm)).toEqual(NOTHING);
    await expectNextRunRight(pool, vm);
  });
});

describe('an abort', () => {
  test.each(['snapshot', 'metadata', 'transfer', 'commit'])(
    'at the stage %s leaves nothing, and says so',
    async (stage) => {
      await using pool = await startPool();
      const vm = await smallVm(pool);
      const stop = new AbortController();
      const reason = new Error('enough');
      const error = await failing(
        backupVm(pool.host, pool.repository, {
          vm: vm.uuid,
          signal: stop.signal,
          onProgress: (event) => event.kind === 'stage' && event.stage === stage && stop.abort(reason),
        }),
      );
      expect(error).toMatchObject({ code: 'ABORTED', cause: reason, report: { outcome: 'aborted' } });
      expect(error.receipt.filter(({ state }) => state === 'left')).toEqual([]);
      expect(await pool.repository.list()).toEqual([]);
      expect(await traces(pool, vm)).toEqual(NOTHING);
      await expectNextRunRight(pool, vm);
    },
  );

  test('in the middle of an NBD read stops an incremental and keeps the base', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.simulator.writeDisk(vm.uuid, '1', 0, randomBytes(8 * MIB));
    const stop = new AbortController();
    const error = await failing(
      backupVm(pool.host, pool.repository, {
        vm: vm.uuid,
        signal: stop.signal,
        onProgress: (event) => event.kind === 'bytes-moved' && stop.abort(),
      }),
    );
    expect(error.code).toBe('ABORTED');
    expect(await traces(pool, vm, [manifest.snapshot.uuid])).toEqual(NOTHING);
    const next = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(next.manifest.disks.map(({ mode }) => mode)).toEqual(['delta', 'delta']);
  });
});

describe('an incremental', () => {
  test('whose NBD connection is cut goes on where it was', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.simulator.writeDisk(vm.uuid, '1', 0, randomBytes(12 * MIB));
    pool.simulator.fault('nbd-cut', { after: 2 * MIB, times: 2 }); // the first connection of each disk
    const retries: ProgressEvent[] = [];
    const onProgress = (event: ProgressEvent) => void (event.kind === 'retrying' && retries.push(event));
    await expectNextRunRight(pool, vm, { onProgress });
    expect(retries).toEqual([
      {
        ...{ kind: 'retrying', run: 'backup', subject: vm.disks[1]!.uuid },
        ...{ attempt: 1, waitMs: 0, reason: expect.stringMatching(/connection/) },
      },
    ]);
  });

  test('ends where whoever listens throws on being told of a retry, and leaves nothing', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await pool.simulator.writeDisk(vm.uuid, '1', 0, randomBytes(12 * MIB));
    pool.simulator.fault('nbd-cut', { after: 2 * MIB, times: 2 }); // the first connection of each disk
    const onProgress = ({ kind }: ProgressEvent) => {
      if (kind === 'retrying') throw new Error('enough');
    };
    const failing = backupVm(pool.host, pool.repository, { vm: vm.uuid, onProgress });
    const error = await failing.catch((failure: unknown) => failure as RunError);
    expect(error).toMatchObject({ code: 'RUN_FAILED', message: 'enough' });
    expect((error as RunError).receipt.filter(({ state }) => state === 'left')).toEqual([]);
    await expectNextRunRight(pool, vm);
  });

  test.each<[string, (pool: Pool, vm: Vm, snapshot: string) => Promise<unknown>, RegExp]>([
    [
      'the host cannot tell what changed',
      async ({ simulator }) =>
        simulator.fault('call-error', {
          method: 'VDI.list_changed_blocks',
          code: 'SR_BACKEND_FAILURE_460',
          params: ['', 'unrelated', ''],
          times: 2,
        }),
      /460/,
    ],
    [
      'tracking was turned off and on',
      async ({ host }, vm) => {
        for (const { uuid } of vm.disks) {
          const { ref } = await host.getRecord('VDI', uuid);
          await host.callAsync('VDI.disable_cbt', [ref]);
          await host.callAsync('VDI.enable_cbt', [ref]);
        }
      },
      /./,
    ],
  ])('becomes a full where %s, and says why', async (_, arrange, reason) => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const first = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    await arrange(pool, vm, first.manifest.snapshot.uuid);
    const { manifest, report } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    expect(manifest.type).toBe('full');
    for (const disk of manifest.disks)
      expect(disk).toMatchObject({ mode: 'full', reason: expect.stringMatching(reason) });
    expect(report.decisions.some(({ topic }) => topic === 'fallback')).toBe(true);
  });

  test('is refused instead, where the plan says so', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const code = 'SR_BACKEND_FAILURE_460';
    pool.simulator.fault('call-error', { method: 'VDI.list_changed_blocks', code, params: ['', 'unrelated', ''] });
    const error = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid, onFallback: 'fail' }));
    expect(error.code).toBe('FALLBACK_REFUSED');
    expect(await pool.repository.list()).toHaveLength(1);
  });
});

describe('a plan that no longer fits is refused', () => {
  async function planned(pool: Pool): Promise<{ vm: Vm; plan: BackupPlan }> {
    const vm = await smallVm(pool);
    const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
    return { vm, plan: JSON.parse(JSON.stringify(plan)) as BackupPlan };
  }

  test('a disk vanished between plan and run', async () => {
    await using pool = await startPool();
    const { vm, plan } = await planned(pool);
    await pool.host.callAsync('VM.hard_shutdown', [vm.ref]);
    await pool.host.callAsync('VBD.destroy', [vm.disks[1]!.vbd]);
    const error = await failing(runBackup(pool.host, pool.repository, plan));
    expect(error.code).toBe('PLAN_STALE');
    expect((await traces(pool, vm)).snapshots).toEqual([]);
  });

  test('another run made a point in between', async () => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const plan = await planBackup(pool.host, pool.repository, { vm: vm.uuid });
    await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const error = await failing(runBackup(pool.host, pool.repository, plan));
    expect(error.code).toBe('PLAN_STALE');
  });

  test('an unknown VM is NOT_FOUND, a template is VM_NOT_SUPPORTED', async () => {
    await using pool = await startPool();
    await expect(planBackup(pool.host, pool.repository, { vm: 'nobody' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const { uuid } = await pool.simulator.createVm({
      name: 'golden',
      powerState: 'Halted',
      record: { is_a_template: true },
    });
    await expect(planBackup(pool.host, pool.repository, { vm: uuid })).rejects.toMatchObject({
      code: 'VM_NOT_SUPPORTED',
    });
  });
});

test('a full repository disk is STORE_FULL, and nothing stays', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const repository: Repository = await openRepository(fullAfter(pool.repository.store, 2 * MIB));
  const error = await failing(backupVm(pool.host, repository, { vm: vm.uuid }));
  expect(error.code).toBe('STORE_FULL');
  expect(await repository.list()).toEqual([]);
  expect(await traces(pool, vm)).toEqual(NOTHING);
});
