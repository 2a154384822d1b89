import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { MIB, smallVm } from './support.ts';

const snapshotDisks = async ({ host }: Pool) =>
  (await host.listRecords('VDI')).filter((vdi) => vdi.is_a_snapshot).map(({ uuid, type }) => ({ uuid, type }));
const purge = { purgeSnapshotData: true };

test('only change logs are kept; increments build on them, and older ones go', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  let last = '';
  for (const type of ['full', 'incr', 'incr'] as const) {
    await pool.simulator.writeDisk(vm.uuid, '1', 4 * MIB, randomBytes(MIB));
    const { manifest, point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, ...purge });
    expect(manifest.type).toBe(type);
    expect(manifest.decisions).toContainEqual(expect.objectContaining({ topic: 'purge' }));
    expect((await pool.host.listRecords('VM')).filter((one) => one.is_a_snapshot)).toEqual([]);
    const uuids = manifest.disks.map(({ snapshotVdiUuid }) => snapshotVdiUuid);
    const kept = await snapshotDisks(pool);
    expect(kept.map(({ uuid }) => uuid).sort()).toEqual(uuids.sort());
    expect(kept.map(({ type }) => type)).toEqual(['cbt_metadata', 'cbt_metadata']);
    expect(await findLeftovers(pool.host)).toEqual([]);
    await using disk = await pool.repository.openDisk(point, vm.disks[1]!.uuid);
    expect(await hashDisk(disk)).toBe(await pool.simulator.hashDisk(vm.disks[1]!.uuid));
    last = manifest.point;
  }
  expect(last).not.toBe('');
  await backupVm(pool.host, pool.repository, { vm: vm.uuid, keepForIncremental: false });
  expect(await snapshotDisks(pool)).toEqual([]);
});

test('a disk that is still in use is waited for; one that stays so is a warning, and a base all the same', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  pool.simulator.fault('vdi-in-use', { operation: 'data_destroy' });
  const first = await backupVm(pool.host, pool.repository, { vm: vm.uuid, ...purge });
  expect(first.report.warnings).toEqual([]);
  const code = 'SR_BACKEND_FAILURE_40';
  pool.simulator.fault('call-error', { method: 'VDI.data_destroy', code, params: ['', 'no', ''] });
  const second = await backupVm(pool.host, pool.repository, { vm: vm.uuid, ...purge });
  expect(second.report.warnings).toEqual([expect.objectContaining({ code: 'PURGE_FAILED' })]);
  expect((await snapshotDisks(pool)).map(({ type }) => type).sort()).toEqual(['cbt_metadata', 'user']);
  const third = await backupVm(pool.host, pool.repository, { vm: vm.uuid, ...purge, mode: 'incremental' });
  expect(third.manifest.type).toBe('incr');
});

test('not with the image strategy, whose host compares with that data', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  await expect(backupVm(pool.host, pool.repository, { vm: vm.uuid, ...purge, strategy: 'image' })).rejects.toThrow(
    TypeError,
  );
});
