import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { cleanUp, findLeftovers } from '../../src/snapshot/index.ts';
import { parseVmMetadata } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { startPool } from '../support/pool.ts';
import { smallVm, type Vm } from './support.ts';

const blockedOn = async ({ host }: Awaited<ReturnType<typeof startPool>>, { uuid }: Vm) =>
  (await host.getRecord('VM', uuid)).blocked_operations;

test.each(['changed-blocks', 'image'] as const)(
  '%s: the VM may not migrate while its disks travel',
  async (strategy) => {
    await using pool = await startPool();
    const vm = await smallVm(pool);
    await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'destroy', 'mine');
    const seen: string[][] = [];
    const onProgress = (event: { readonly kind: string }) => {
      if (event.kind !== 'bytes-moved') return;
      seen.push(Object.keys(pool.simulator.world.getObject('VM', vm.ref).blocked_operations).sort());
    };
    const { point } = await backupVm(pool.host, pool.repository, { vm: vm.uuid, strategy, onProgress });
    expect(seen[0]).toEqual(['destroy', 'migrate_send', 'pool_migrate']);
    expect(await blockedOn(pool, vm)).toEqual({ destroy: 'mine' });
    const { VM } = parseVmMetadata(await pool.repository.readMetadata(point), 'metadata');
    expect(VM['blocked_operations']).toEqual({ destroy: 'mine' });
  },
);

test('what the owner has forbidden stays his; a failure takes back ours', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'migrate_send', 'never');
  pool.simulator.fault('export-500', { after: 0, path: '/export_raw_vdi' });
  const error = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid }));
  expect(error.receipt).toContainEqual(expect.objectContaining({ kind: 'block', uuid: vm.uuid, state: 'removed' }));
  expect(await blockedOn(pool, vm)).toEqual({ migrate_send: 'never' });
});

test('not where it is not wanted, and a host that forbids it is a warning', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const calls = () => pool.simulator.log.names().filter((name) => name.includes('blocked_operations'));
  await backupVm(pool.host, pool.repository, { vm: vm.uuid, blockMigration: false });
  expect(calls()).toEqual([]);
  const code = 'RBAC_PERMISSION_DENIED';
  pool.simulator.fault('call-error', { method: 'VM.add_to_blocked_operations', code, params: ['', ''] });
  const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  expect(manifest.warnings).toContainEqual(expect.objectContaining({ code: 'MIGRATION_NOT_BLOCKED' }));
});

/** What a run that was killed on another machine has written about itself. */
const deadMark = (uuid: string) => ({
  ...{ uuid, runId: 'dead', at: '2020-01-01T00:00:00Z' },
  runner: { hostname: 'gone', pid: 1, thread: 0 },
});
const reason = (mark: object) => `xen-backup-sdk is backing this VM up: ${JSON.stringify(mark)}`;

test('the block of a dead run is found and taken back; of a copy of it, and of a living run, not', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const by = deadMark(vm.uuid);
  await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'migrate_send', reason(by));
  await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'pool_migrate', reason({ ...by, uuid: 'another' }));
  const leftovers = await findLeftovers(pool.host);
  expect(leftovers).toEqual([expect.objectContaining({ kind: 'block', uuid: vm.uuid, runId: 'dead' })]);
  expect(await cleanUp(pool.host, leftovers)).toMatchObject([{ removed: true }]);
  expect(Object.keys(await blockedOn(pool, vm))).toEqual(['pool_migrate']);
  const alive = { ...by, runId: 'alive', at: new Date().toISOString() };
  await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'migrate_send', reason(alive));
  expect(await findLeftovers(pool.host)).toEqual([]);
});

test.each([
  ['LEFTOVER_REMOVED', /^removed the ban on migrating the VM \S+ \(UUID\), left by a killed run$/, 0],
  ['LEFTOVER_LEFT', /^could not remove the ban on migrating the VM \S+ \(UUID\), left by a killed run: .*no/, 99],
] as const)('%s calls it what it is', async (code, message, times) => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const by = deadMark(vm.uuid);
  await pool.host.call('VM.add_to_blocked_operations', vm.ref, 'migrate_send', reason(by));
  const method = 'VM.remove_from_blocked_operations';
  if (times > 0) pool.simulator.fault('call-error', { method, code: 'INTERNAL_ERROR', params: ['no'], times });
  const { manifest } = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
  const warning = manifest.warnings.find((one) => one.code === code);
  expect(warning?.message.replace(vm.uuid, 'UUID')).toMatch(message);
});

test('a VM that migrates is not backed up', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  pool.simulator.world.updateObject('VM', vm.ref, { current_operations: { task: 'migrate_send' } });
  await expect(backupVm(pool.host, pool.repository, { vm: vm.uuid })).rejects.toMatchObject({
    code: 'VM_NOT_SUPPORTED',
    message: expect.stringContaining('migrating') as string,
  });
});
