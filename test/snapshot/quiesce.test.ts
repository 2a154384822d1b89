import { expect, test } from 'vitest';
import { destroySnapshot, findLeftovers, startRun, takeSnapshot } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { DEAD, everything, MIB, newRunId } from './support.ts';

const vmWithTools = ({ simulator }: Pool) =>
  simulator.createVm({ disks: [{ size: 4 * MIB }, { size: 4 * MIB }], guestTools: 'vss' });

async function take({ host }: Pool, uuid: string, options: Partial<Parameters<typeof takeSnapshot>[2]> = {}) {
  const runId = newRunId();
  const { runner } = startRun(runId);
  const vm = await host.getRecord('VM', uuid);
  return takeSnapshot(host, vm, { runId, runner, now: Date.now(), quiesce: 'prefer', ...options });
}

test('a quiesced snapshot is marked, told apart by the host, and leaves out disks', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const vm = await vmWithTools(pool);
  const before = await everything(pool);
  const snapshot = await take(pool, vm.uuid, { excludeVdis: [vm.disks[1]!.uuid] });
  expect(snapshot.consistency).toEqual({ requested: 'quiesced', achieved: 'quiesced' });
  expect(snapshot.disks.map(({ vdiUuid }) => vdiUuid)).toEqual([vm.disks[0]!.uuid]);
  const record = pool.simulator.world.getObject('VM', snapshot.ref);
  expect(record.snapshot_info['disk-snapshot-type']).toBe('quiesced');
  await destroySnapshot(pool.host, snapshot.ref);
  expect(await everything(pool)).toEqual(before);
});

test('what a failing host leaves half-made, and does not give up, is told and found by a later run', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const { simulator, host } = pool;
  const vm = await vmWithTools(pool);
  simulator.fault('quiesce', { halfMade: true });
  simulator.fault('call-error', { method: 'VM.destroy', code: 'INTERNAL_ERROR', params: ['oops'] });
  const warnings: string[] = [];
  const observer = { warn: (code: string) => void warnings.push(code), fallBack() {}, hookEnded() {} };
  const snapshot = await take(pool, vm.uuid, { observer, runner: DEAD, runId: newRunId() });
  expect(snapshot.consistency.achieved).toBe('crash-consistent');
  expect(warnings).toEqual(['SNAPSHOT_LEFT']);
  const found = (await findLeftovers(host)).filter(({ uuid }) => uuid !== snapshot.uuid);
  expect(found).toMatchObject([{ kind: 'snapshot' }]);
});

test('another snapshot of the VM is left alone, whatever its name', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const vm = await vmWithTools(pool);
  const runId = newRunId();
  const other = await take(pool, vm.uuid, { quiesce: 'never' });
  await pool.host.call('VM.set_name_label', other.ref, `web [xen-backup-sdk ${runId}]`);
  pool.simulator.fault('quiesce', {});
  await take(pool, vm.uuid, { runId });
  expect(await pool.host.findRecord('VM', other.uuid)).toBeDefined();
});

test.each(['SR_BACKEND_FAILURE_44', 'OPERATION_BLOCKED'])(
  '%s is no matter of quiescing: a plain snapshot would meet it, too',
  async (code) => {
    await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
    const vm = await vmWithTools(pool);
    const before = await everything(pool);
    pool.simulator.fault('call-error', { method: 'VM.snapshot_with_quiesce', code, params: ['', '', ''] });
    await expect(take(pool, vm.uuid)).rejects.toMatchObject({ xapiCode: code });
    expect(pool.simulator.log.entries.some(({ method }) => /VM\.snapshot$/.test(method))).toBe(false);
    expect(await everything(pool)).toEqual(before);
  },
);
