import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { backupVm, type PlanBackupOptions, planBackup, runBackup } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { openRepository } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { expectNextRunRight, fullAfter, MIB, NOTHING, smallVm, traces, type Vm } from './support.ts';

const image = { strategy: 'image' } as const;
type Options = Omit<PlanBackupOptions, 'vm'>;

const run = ({ host, repository }: Pool, vm: Vm, options: Options = {}) =>
  backupVm(host, repository, { ...image, ...options, vm: vm.uuid });

test.each<[string, string, (pool: Pool) => void, Options?]>([
  [
    'cut in the middle',
    'TRANSFER_FAILED',
    ({ simulator }) => simulator.fault('export-cut', { after: 3 * MIB, path: '/export' }),
  ],
  [
    'cut while the host believes that all went well',
    'TRANSFER_FAILED',
    ({ simulator }) => simulator.fault('export-cut', { after: 3 * MIB, path: '/export', taskSucceeds: true }),
  ],
  [
    'compressed, and cut while the host believes that all went well',
    'TRANSFER_FAILED',
    ({ simulator }) => simulator.fault('export-cut', { after: 3 * MIB, path: '/export', taskSucceeds: true }),
    { compression: 'zstd' },
  ],
  [
    'that ends in a 500',
    'TRANSFER_FAILED',
    ({ simulator }) => simulator.fault('export-500', { after: 3 * MIB, path: '/export' }),
  ],
  [
    'that is too short',
    'TRANSFER_FAILED',
    ({ simulator }) => simulator.fault('export-length', { change: -2048, path: '/export' }),
  ],
  ['with a wrong checksum', 'TRANSFER_FAILED', ({ simulator }) => simulator.fault('export-checksum', {})],
])('an archive %s is no point, and nothing stays', async (_, code, arm, options = {}) => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  arm(pool);
  const error = await failing(run(pool, vm, options));
  expect(error.code).toBe(code);
  expect(error.receipt.filter(({ state }) => state === 'left')).toEqual([]);
  expect(await pool.repository.list()).toEqual([]);
  expect(await traces(pool, vm)).toEqual(NOTHING);
  await expectNextRunRight(pool, vm, { ...image, ...options });
});

test('a chunk of no bytes, as a slow host sends it, is no damage', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  pool.simulator.fault('zero-length-chunk', {});
  const { point } = await run(pool, vm);
  for (const { uuid } of vm.disks) {
    await using disk = await pool.repository.openDisk(point, uuid);
    expect(await hashDisk(disk)).toBe(await pool.simulator.hashDisk(uuid));
  }
});

test('a full repository disk is STORE_FULL, and nothing stays', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const repository = await openRepository(fullAfter(pool.repository.store, 2 * MIB));
  const error = await failing(backupVm(pool.host, repository, { ...image, vm: vm.uuid }));
  expect(error.code).toBe('STORE_FULL');
  expect(await repository.list()).toEqual([]);
  expect(await traces(pool, vm)).toEqual(NOTHING);
});

test.each(['snapshot', 'metadata', 'transfer', 'bytes-moved', 'commit'])(
  'an abort of a full at %s leaves nothing, of an increment only the base',
  async (place) => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    const aborted = async () => {
      const stop = new AbortController();
      const error = await failing(
        backupVm(pool.host, pool.repository, {
          ...image,
          vm: vm.uuid,
          signal: stop.signal,
          onProgress: (event) => (event.kind === 'stage' ? event.stage : event.kind) === place && stop.abort(),
        }),
      );
      expect(error.code).toBe('ABORTED');
    };
    await aborted();
    expect(await pool.repository.list()).toEqual([]);
    expect(await traces(pool, vm)).toEqual(NOTHING);
    const { manifest } = await run(pool, vm);
    await pool.simulator.writeDisk(vm.uuid, '1', 4 * MIB, randomBytes(3 * MIB));
    await aborted();
    expect(await pool.repository.list()).toHaveLength(1);
    expect(await traces(pool, vm, [manifest.snapshot.uuid])).toEqual(NOTHING);
    await expectNextRunRight(pool, vm, { ...image, mode: 'incremental' });
  },
);

test('differences that are cut off fail the run, and the base stays', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const { manifest } = await run(pool, vm);
  await pool.simulator.writeDisk(vm.uuid, '0', 4 * MIB, randomBytes(3 * MIB));
  pool.simulator.fault('export-cut', { after: MIB, path: '/export_raw_vdi' });
  const error = await failing(run(pool, vm));
  expect(error.code).toBe('TRANSFER_FAILED');
  expect(await traces(pool, vm, [manifest.snapshot.uuid])).toEqual(NOTHING);
  await expectNextRunRight(pool, vm, { ...image, mode: 'incremental' });
});

test.each([
  ['INTERNAL_ERROR', ['Failure("Cannot compute differences on non-VHD images")']],
  ['VDI_INCOMPATIBLE_TYPE', ['OpaqueRef:x', 'cbt_metadata']],
])('differences that the host finds it cannot tell (%s) become a full of the disk, or refuse', async (code, params) => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const { manifest } = await run(pool, vm);
  await pool.simulator.writeDisk(vm.uuid, '0', 4 * MIB, randomBytes(3 * MIB));
  const cannot = () => pool.simulator.fault('export-500', { after: 0, path: '/export_raw_vdi', code, params });
  cannot();
  const error = await failing(run(pool, vm, { onFallback: 'fail' }));
  expect(error).toMatchObject({ code: 'FALLBACK_REFUSED', facts: { reason: expect.stringContaining(code) as string } });
  expect(await traces(pool, vm, [manifest.snapshot.uuid])).toEqual(NOTHING);
  cannot();
  const { manifest: next, point, report } = await run(pool, vm);
  expect(next.disks.map(({ mode }) => mode).sort()).toEqual(['delta', 'full']);
  expect(next.disks.find(({ mode }) => mode === 'full')!.reason).toContain(code);
  expect(report.decisions.filter(({ topic }) => topic === 'fallback')).toHaveLength(1);
  for (const { uuid } of vm.disks) {
    await using disk = await pool.repository.openDisk(point, uuid);
    expect(await hashDisk(disk)).toBe(await pool.simulator.hashDisk(uuid));
  }
});

test('a full made in between makes the plan of an increment stale', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  await run(pool, vm);
  const plan = await planBackup(pool.host, pool.repository, { ...image, vm: vm.uuid });
  await run(pool, vm); // another increment harms nobody
  await runBackup(pool.host, pool.repository, plan);
  const { manifest } = await run(pool, vm, { mode: 'full' });
  const error = await failing(runBackup(pool.host, pool.repository, plan));
  expect(error.code).toBe('PLAN_STALE');
  expect(await traces(pool, vm, [manifest.snapshot.uuid])).toEqual(NOTHING);
});

test('a base that is broken in the repository is not built on', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const { manifest } = await run(pool, vm);
  const file = manifest.files.find(({ role }) => role === 'image')!;
  await pool.repository.store.remove(`vms/${vm.uuid}/${file.name}`);
  const { manifest: next } = await run(pool, vm);
  expect(next).toMatchObject({ type: 'full', disks: [{ reason: expect.stringContaining('broken') }, {}] });
});

test.each<[string, Options]>([
  ['exclude', { exclude: ['1'] }],
  ['vtpm', { vtpm: 'omit' }],
  ['transport', { transport: 'raw' }],
])('%s does not go with the image strategy, and is not passed over', async (name, options) => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const planning = planBackup(pool.host, pool.repository, { ...image, ...options, vm: vm.uuid });
  await expect(planning).rejects.toThrow(new RegExp(name));
  await expect(planBackup(pool.host, pool.repository, { vm: vm.uuid, compression: 'zstd' })).rejects.toThrow(TypeError);
});
