import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { preflight } from '../../src/preflight/index.ts';
import { startPool } from '../support/pool.ts';

const MIB = 1024 * 1024;

async function vmOn(pool: Awaited<ReturnType<typeof startPool>>, name: string, megabytes = 4) {
  const sr = (await pool.host.listRecords('SR')).find(({ name_label }) => name_label === name)!;
  const vm = await pool.simulator.createVm({ disks: [{ size: megabytes * MIB, sr: sr.ref }] });
  await pool.simulator.writeDisk(vm.uuid, '0', 0, new Uint8Array(2 * MIB).fill(7));
  return vm;
}

test('thick storage without room refuses disks and snapshots; the backup says so and leaves nothing', async () => {
  await using pool = await startPool({ storages: [{ type: 'lvm', name: 'Thick', size: 9 * MIB }] });
  const vm = await vmOn(pool, 'Thick', 8);
  const failing = backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expect(failing).rejects.toMatchObject({ xapiCode: 'SR_BACKEND_FAILURE_44' });
  expect((await pool.host.listRecords('VM')).filter(({ is_a_snapshot }) => is_a_snapshot)).toEqual([]);
  const sr = (await pool.host.listRecords('SR')).find(({ name_label }) => name_label === 'Thick')!.ref;
  const record = { SR: sr, virtual_size: 4 * MIB, type: 'user', sharable: false, read_only: false, other_config: {} };
  await expect(pool.host.callAsync('VDI.create', [record])).rejects.toMatchObject({
    xapiCode: 'SR_BACKEND_FAILURE_44',
  });
});

test('raw LUNs know neither snapshots nor change tracking', async () => {
  await using pool = await startPool({ storages: [{ type: 'iscsi', name: 'Block' }] });
  const vm = await vmOn(pool, 'Block');
  const failing = backupVm(pool.host, pool.repository, { vm: vm.uuid });
  await expect(failing).rejects.toMatchObject({ xapiCode: 'SR_OPERATION_NOT_SUPPORTED' });
  expect((await preflight(pool.host, { vms: [vm.uuid] })).filter(({ severity }) => severity === 'error')).not.toEqual(
    [],
  );
});

test('a garbage collector that does not come leaves the chain long', async () => {
  await using pool = await startPool({ timing: { settleMs: 0 } });
  const vm = await vmOn(pool, 'Local storage');
  const nodes = async () => (await pool.host.listRecords('VDI')).filter(({ managed }) => !managed).length;
  pool.simulator.fault('coalesce-not-done', {});
  for (const expected of [1, 0]) {
    await backupVm(pool.host, pool.repository, { vm: vm.uuid, fullOnly: true });
    await expect.poll(nodes).toBe(expected); // the second time it comes, and finds what was left
  }
});
