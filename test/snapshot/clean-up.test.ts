import { describe, expect, test } from 'vitest';
import {
  cleanUp,
  destroySnapshot,
  discardRun,
  findLeftovers,
  intentKey,
  keepSnapshot,
  OWNER_KEY,
  readOwnerMark,
  removeKeptBases,
  startRun,
  takeSnapshot,
  workingName,
} from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { abandonedSnapshot, DEAD, everything, newRunId, twoDiskVm, type Vm } from './support.ts';

const kinds = (leftovers: readonly { kind: string }[]) => leftovers.map(({ kind }) => kind).sort();

/** The state of a run that was killed after the snapshot and before its marks. */
async function unmarkedSnapshot({ host }: Pool, vm: Vm, runId = newRunId()): Promise<string> {
  const intent = { uuid: vm.uuid, vmUuid: vm.uuid, runId, runner: DEAD, at: new Date().toISOString() };
  await host.call('VM.add_to_other_config', vm.ref, intentKey(runId), JSON.stringify(intent));
  return host.callAsync<string>('VM.snapshot', [vm.ref, workingName({ name_label: vm.name }, runId)]);
}

describe('what killed runs left', () => {
  test('a marked snapshot goes with its disks, the disc in its drive stays', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    const { uuid } = await abandonedSnapshot(pool, vm);
    const leftovers = await findLeftovers(pool.host);
    expect(leftovers).toMatchObject([{ kind: 'snapshot', uuid, evidence: expect.stringContaining('its own uuid') }]);
    expect((await everything(pool)).vms).toHaveProperty(uuid); // finding changes nothing
    expect(await cleanUp(pool.host, leftovers)).toEqual([{ leftover: leftovers[0], removed: true }]);
    expect(await everything(pool)).toEqual(before);
  });

  test('a snapshot without a mark is found by intent, name and origin together', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    await unmarkedSnapshot(pool, vm);
    const leftovers = await findLeftovers(pool.host, { vmUuid: vm.uuid });
    expect(kinds(leftovers)).toEqual(['intent', 'snapshot']);
    await cleanUp(pool.host, leftovers);
    expect(await everything(pool)).toEqual(before);
  });

  test('the intent stays as long as the snapshot that it proves cannot be removed', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const snapshot = await unmarkedSnapshot(pool, vm);
    pool.simulator.fault('call-error', { method: 'VM.destroy', code: 'SR_BACKEND_FAILURE_1', params: ['', '', ''] });
    const results = await cleanUp(pool.host, await findLeftovers(pool.host));
    expect(results.map(({ removed }) => removed)).toEqual([false, false]);
    expect((await pool.host.getRecord('VM', snapshot)).is_a_snapshot).toBe(true);
    await cleanUp(pool.host, await findLeftovers(pool.host));
    expect(await findLeftovers(pool.host)).toEqual([]);
    expect(await pool.host.findRecord('VM', snapshot)).toBeUndefined();
  });

  test('a snapshot whose VM was destroyed meanwhile is found, too', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const { uuid, disks } = await abandonedSnapshot(pool, vm);
    await pool.host.callAsync('VM.hard_shutdown', [vm.ref]);
    await pool.host.callAsync('VM.destroy', [vm.ref]);
    const leftovers = await findLeftovers(pool.host);
    expect(leftovers).toMatchObject([{ kind: 'snapshot', uuid }]);
    await cleanUp(pool.host, leftovers);
    for (const { snapshotVdiUuid, vdiUuid } of disks) {
      expect(await pool.host.findRecord('VDI', snapshotVdiUuid)).toBeUndefined();
      expect(await pool.host.findRecord('VDI', vdiUuid)).toBeDefined(); // the user's own disks
    }
  });

  test('disks that lost their snapshot VM', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    const { ref } = await abandonedSnapshot(pool, vm);
    await pool.host.callAsync('VM.destroy', [ref]);
    const leftovers = await findLeftovers(pool.host, { vmUuid: vm.uuid });
    expect(kinds(leftovers)).toEqual(['disk', 'disk']);
    await cleanUp(pool.host, leftovers);
    expect(await everything(pool)).toEqual(before);
  });

  test('of another VM are not listed where one VM is asked for', async () => {
    await using pool = await startPool();
    const [vm, other] = [await twoDiskVm(pool), await twoDiskVm(pool)]; // of one name
    const { ref } = await abandonedSnapshot(pool, vm);
    expect(await findLeftovers(pool.host, { vmUuid: other.uuid })).toEqual([]);
    await pool.host.callAsync('VM.destroy', [ref]);
    expect(await findLeftovers(pool.host, { vmUuid: other.uuid })).toEqual([]);
  });
});

describe('never touched', () => {
  async function cleanAll(pool: Pool): Promise<void> {
    await cleanUp(pool.host, await findLeftovers(pool.host));
  }

  test('a VM cloned from our snapshot, a snapshot of that, and its disks', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const snapshot = await abandonedSnapshot(pool, vm);
    const clone = await pool.host.callAsync<string>('VM.clone', [snapshot.ref, 'production']);
    const ofClone = await pool.host.callAsync<string>('VM.snapshot', [clone, 'by the user']);
    const disks = [...(await pool.host.listDisks(clone)), ...(await pool.host.listDisks(ofClone))];
    const hashes = await Promise.all(disks.map(({ vdi }) => pool.simulator.hashDisk(vdi.uuid)));
    expect((await pool.host.getRecord('VM', ofClone)).other_config).toHaveProperty([OWNER_KEY]);
    await cleanAll(pool);
    expect(await pool.host.findRecord('VM', snapshot.ref)).toBeUndefined();
    expect((await pool.host.getRecord('VM', clone)).name_label).toBe('production');
    expect((await pool.host.getRecord('VM', ofClone)).name_label).toBe('by the user');
    expect(await Promise.all(disks.map(({ vdi }) => pool.simulator.hashDisk(vdi.uuid)))).toEqual(hashes);
  });

  test('a VM reverted to our snapshot, its disks, and a disk of it that was detached', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const snapshot = await abandonedSnapshot(pool, vm);
    await pool.host.callAsync('VM.revert', [snapshot.ref]);
    const disks = await pool.host.listDisks(vm.ref);
    expect(disks[0]?.vdi.other_config).toHaveProperty([OWNER_KEY]);
    await pool.host.callAsync('VBD.destroy', [disks[0]?.vbd.ref]);
    await cleanAll(pool);
    expect(await pool.host.findRecord('VM', vm.uuid)).toBeDefined();
    for (const { vdi } of disks) expect(await pool.host.findRecord('VDI', vdi.uuid)).toBeDefined();
  });

  test('our snapshot brought back as a VM by an import that kept its uuid', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const snapshot = await abandonedSnapshot(pool, vm);
    // what an archive of a snapshot says: its uuid and marks, and that it is none
    pool.simulator.world.updateObject('VM', snapshot.ref, { is_a_snapshot: false, is_a_template: false });
    expect(readOwnerMark(await pool.host.getRecord('VM', snapshot.ref))).toBeDefined();
    expect((await findLeftovers(pool.host)).filter(({ kind }) => kind === 'snapshot')).toEqual([]);
    await cleanAll(pool);
    await discardRun(pool.host, vm.uuid, snapshot.mark.runId);
    expect(await pool.host.findRecord('VM', snapshot.uuid)).toBeDefined();
    for (const disk of await pool.host.listDisks(snapshot.ref)) expect(disk.vdi).toBeDefined();
    expect(await pool.host.listDisks(snapshot.ref)).toHaveLength(2);
  });

  test('a snapshot of a user, also under a name like ours', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const named = await pool.host.callAsync<string>('VM.snapshot', [vm.ref, 'web [xen-backup-sdk 0123456789ab]']);
    const before = await everything(pool);
    expect(await findLeftovers(pool.host)).toEqual([]);
    await cleanAll(pool);
    expect(await everything(pool)).toEqual(before);
    expect(await pool.host.findRecord('VM', named)).toBeDefined();
  });

  test('a mark that somebody else wrote, or damaged', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    for (const text of ['', 'not JSON', 'null', '[]', '{"uuid":1}', `{"uuid":"${vm.uuid}"}`]) {
      await pool.host.call('VM.add_to_other_config', vm.ref, OWNER_KEY, text);
      await pool.host.call('VM.add_to_other_config', vm.ref, intentKey('0123456789ab'), text);
      expect(await findLeftovers(pool.host)).toEqual([]);
      await pool.host.call('VM.remove_from_other_config', vm.ref, OWNER_KEY);
      await pool.host.call('VM.remove_from_other_config', vm.ref, intentKey('0123456789ab'));
    }
  });

  test('what a living run works with', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const runId = newRunId();
    const run = startRun(runId);
    const foreign = { hostname: 'elsewhere', pid: 1, thread: 0 };
    await abandonedSnapshot(pool, vm, { ...DEAD, pid: process.ppid });
    await abandonedSnapshot(pool, vm, foreign);
    await abandonedSnapshot(pool, vm, { ...run.runner, thread: 77 }); // another thread of ours cannot be asked
    expect(await findLeftovers(pool.host)).toEqual([]);
    run.end();
    const tomorrow = { now: () => Date.now() + 25 * 3600_000, sleep: () => Promise.resolve() };
    expect(await findLeftovers(pool.host, { clock: tomorrow })).toHaveLength(1);
  });

  test('what changed between the finding and the removing', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const kept = await abandonedSnapshot(pool, vm);
    const detached = await abandonedSnapshot(pool, vm);
    await pool.host.callAsync('VM.destroy', [detached.ref]);
    const leftovers = await findLeftovers(pool.host);
    expect(kinds(leftovers)).toEqual(['disk', 'disk', 'snapshot']);

    const keptFor = { repositoryId: 'r', strategy: 'changed-blocks', point: 'p' };
    await keepSnapshot(pool.host, kept, keptFor, 'web [base]');
    const rescue = await pool.simulator.createVm({ name: 'rescue', powerState: 'Halted' });
    for (const [index, { snapshotVdiRef }] of detached.disks.entries()) {
      const vbd = { VM: rescue.ref, VDI: snapshotVdiRef, userdevice: String(index), bootable: false, mode: 'RO' };
      const rest = { type: 'Disk', empty: false, other_config: {}, qos_algorithm_type: '', qos_algorithm_params: {} };
      await pool.host.callAsync('VBD.create', [{ ...vbd, ...rest }]);
    }
    const results = await cleanUp(pool.host, leftovers);
    expect(results.map(({ removed }) => removed)).toEqual([false, false, false]);
    for (const { error } of results) expect(error).toMatchObject({ code: 'CLEAN_UP_INCOMPLETE' });
    expect(await pool.host.listDisks(rescue.ref)).toHaveLength(2);
    expect(await pool.host.findRecord('VM', kept.uuid)).toBeDefined();
  });
});

test('a snapshot that the host still makes when its run gives up is waited for', async () => {
  await using pool = await startPool();
  const vm = await twoDiskVm(pool);
  const { host, simulator } = pool;
  const runId = newRunId();
  const made = await unmarkedSnapshot(pool, vm, runId);
  const before = await everything(pool);
  await destroySnapshot(host, made);
  simulator.world.updateObject('VM', vm.ref, { current_operations: { 'OpaqueRef:op': 'snapshot' } });
  let looks = 0;
  const clock = {
    now: () => Date.now(),
    async sleep() {
      if (++looks < 3) return;
      await host.callAsync('VM.snapshot', [vm.ref, workingName({ name_label: vm.name }, runId)]);
      simulator.world.updateObject('VM', vm.ref, { current_operations: {} });
    },
  };
  const receipt = await discardRun(host, vm.uuid, runId, { clock });
  expect(looks).toBe(3);
  expect(receipt.map(({ kind, state }) => [kind, state])).toEqual([
    ['snapshot', 'removed'],
    ['intent', 'removed'],
  ]);
  expect(Object.keys((await everything(pool)).vms).length).toBe(Object.keys(before.vms).length - 1);
});

describe('kept bases', () => {
  const owner = { repositoryId: 'mine', strategy: 'changed-blocks' };

  async function keptSnapshot(pool: Pool, vm: Vm, keptFor: { repositoryId: string; strategy: string; point: string }) {
    const snapshot = await abandonedSnapshot(pool, vm);
    await keepSnapshot(pool.host, snapshot, keptFor, `${vm.name} [base]`);
    return snapshot;
  }

  test('only those of this repository and strategy that no point needs', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const stale = await keptSnapshot(pool, vm, { ...owner, point: 'old' });
    const base = await keptSnapshot(pool, vm, { ...owner, point: 'new' });
    const others = [
      await keptSnapshot(pool, vm, { ...owner, repositoryId: 'theirs', point: 'old' }),
      await keptSnapshot(pool, vm, { ...owner, strategy: 'image', point: 'old' }),
    ];
    expect(await findLeftovers(pool.host)).toEqual([]);
    const result = await removeKeptBases(pool.host, vm, {
      ...owner,
      keepPoint: 'new',
      points: new Set(['old', 'new']),
    });
    expect(result).toMatchObject([{ kind: 'snapshot', uuid: stale.uuid, state: 'removed' }]);
    for (const { uuid } of [base, ...others]) expect(await pool.host.findRecord('VM', uuid)).toBeDefined();
    for (const { snapshotVdiUuid } of stale.disks) {
      expect(await pool.host.findRecord('VDI', snapshotVdiUuid)).toBeUndefined();
    }
  });

  test('not one whose living run is about to commit its point', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const run = startRun(newRunId());
    const record = await pool.host.getRecord('VM', vm.uuid);
    const alive = { ...run.runner, pid: process.ppid };
    const snapshot = await takeSnapshot(pool.host, record, { runId: newRunId(), runner: alive, now: Date.now() });
    await keepSnapshot(pool.host, snapshot, { ...owner, point: 'soon' }, 'base');
    const without = { ...owner, keepPoint: 'old', points: new Set(['old']) };
    expect(await removeKeptBases(pool.host, vm, without)).toEqual([]);
    const committed = { ...owner, keepPoint: 'later', points: new Set(['soon', 'later']) };
    expect(await removeKeptBases(pool.host, vm, committed)).toHaveLength(1);
    run.end();
  });

  test('those of a VM that was lost and brought back under its uuid', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const { uuid } = await keptSnapshot(pool, vm, { ...owner, point: 'old' });
    await pool.host.callAsync('VM.hard_shutdown', [vm.ref]);
    await pool.host.callAsync('VM.destroy', [vm.ref]);
    const result = await removeKeptBases(pool.host, vm, { ...owner, keepPoint: 'new', points: new Set() });
    expect(result).toMatchObject([{ uuid, state: 'removed' }]);
  });

  test('one that cannot be removed is told, and the others go', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    await keptSnapshot(pool, vm, { ...owner, point: 'a' });
    await keptSnapshot(pool, vm, { ...owner, point: 'b' });
    pool.simulator.fault('call-error', { method: 'VM.destroy', code: 'SR_BACKEND_FAILURE_1', params: ['', '', ''] });
    const result = await removeKeptBases(pool.host, vm, { ...owner, keepPoint: undefined, points: new Set() });
    expect(result.map(({ state }) => state).sort()).toEqual(['left', 'removed']);
    const { error } = result.find(({ state }) => state === 'left')!;
    expect(error).toContain('SR_BACKEND_FAILURE_1');
  });
});
