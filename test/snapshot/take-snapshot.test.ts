import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import type { Host } from '../../src/host/index.ts';
import { destroySnapshot, findLeftovers, OWNER_KEY, startRun, takeSnapshot } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { DEAD, everything, newRunId, twoDiskVm, type Vm } from './support.ts';

const settings = (runId = newRunId()) => ({ runId, runner: startRun(runId).runner, now: Date.now() });

function take({ host }: Pool, vm: Vm, options: Partial<Parameters<typeof takeSnapshot>[2]> = {}) {
  return host.getRecord('VM', vm.uuid).then((record) => takeSnapshot(host, record, { ...settings(), ...options }));
}

describe.each(['xcp-ng-8.3', 'xcp-ng-8.2', 'xenserver-7.2'] as const)('%s', (profile) => {
  test('marks the snapshot and its disks as its own, and leaves the VM as it was', async () => {
    await using pool = await startPool({ profile, nbd: false });
    const vm = await twoDiskVm(pool);
    const before = await pool.host.getRecord('VM', vm.uuid);
    const snapshot = await take(pool, vm);
    const after = await pool.host.getRecord('VM', vm.uuid);
    expect(after.other_config).toEqual(before.other_config);
    const taken = await pool.host.getRecord('VM', snapshot.uuid);
    expect(JSON.parse(taken.other_config[OWNER_KEY] ?? '')).toMatchObject({ uuid: snapshot.uuid, vmUuid: vm.uuid });
    expect(Object.keys(taken.other_config).filter((key) => key.startsWith('xen-backup-sdk'))).toEqual([OWNER_KEY]);
    expect(snapshot.disks.map(({ vdiUuid, size }) => [vdiUuid, size])).toEqual(
      vm.disks.map(({ uuid, size }) => [uuid, size]),
    );
    for (const { snapshotVdiUuid } of snapshot.disks) {
      const { other_config } = await pool.host.getRecord('VDI', snapshotVdiUuid);
      expect(JSON.parse(other_config[OWNER_KEY] ?? '')).toMatchObject({ uuid: snapshotVdiUuid, vmUuid: vm.uuid });
    }
  });

  test('leaves disks out, also where the host cannot', async () => {
    await using pool = await startPool({ profile, nbd: false });
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    const gone = '00000000-0000-4000-8000-000000000000';
    const snapshot = await take(pool, vm, { excludeVdis: [vm.disks[1]!.uuid, gone] });
    expect(snapshot.disks.map(({ vdiUuid }) => vdiUuid)).toEqual([vm.disks[0]!.uuid]);
    expect(await pool.host.listDisks(snapshot.ref)).toHaveLength(1);
    await destroySnapshot(pool.host, snapshot.uuid);
    expect(await everything(pool)).toEqual(before);
  });
});

describe('without options', () => {
  test('the run is of this process, and no leftover while it lives', async () => {
    await using pool = await startPool({ nbd: false });
    const vm = await twoDiskVm(pool);
    const record = await pool.host.getRecord('VM', vm.uuid);
    const before = Date.now();
    const snapshots = [await takeSnapshot(pool.host, record), await takeSnapshot(pool.host, record)];
    const marks = snapshots.map(({ mark }) => mark);
    expect(marks[0]!.runId).toMatch(/^[0-9a-f]{12}$/);
    expect(marks[1]!.runId).not.toBe(marks[0]!.runId);
    for (const { runner, at } of marks) {
      expect(runner).toEqual({ hostname: hostname(), pid: process.pid, thread: threadId });
      expect(Date.parse(at)).toBeGreaterThanOrEqual(before);
      expect(Date.parse(at)).toBeLessThanOrEqual(Date.now());
    }
    expect(await findLeftovers(pool.host)).toEqual([]);
    for (const { uuid } of snapshots) await destroySnapshot(pool.host, uuid);
  });

  test.each([
    ['what a failure cannot remove is a leftover', undefined, 1],
    ['but not of a run that the caller has named', 'mine', 0],
  ] as const)('%s', async (_name, runId, leftovers) => {
    await using pool = await startPool({ nbd: false });
    const vm = await twoDiskVm(pool);
    const record = await pool.host.getRecord('VM', vm.uuid);
    const denied = { code: 'RBAC_PERMISSION_DENIED', params: ['', ''] };
    pool.simulator.fault('call-error', { method: 'VDI.add_to_other_config', ...denied });
    pool.simulator.fault('call-error', { method: 'VM.destroy', ...denied, times: 9 });
    await expect(takeSnapshot(pool.host, record, { runId })).rejects.toThrow('RBAC_PERMISSION_DENIED');
    const found = await findLeftovers(pool.host);
    expect(found.filter(({ kind }) => kind === 'snapshot')).toHaveLength(leftovers);
  });
});

test('a VM without disks, and each power state', async () => {
  await using pool = await startPool();
  for (const powerState of ['Halted', 'Running', 'Paused', 'Suspended'] as const) {
    const vm = await pool.simulator.createVm({ name: powerState, powerState, cd: 'iso' });
    const before = await everything(pool);
    const snapshot = await take(pool, vm);
    expect(snapshot.disks).toEqual([]);
    await destroySnapshot(pool.host, snapshot.ref);
    await destroySnapshot(pool.host, snapshot.ref); // gone is done
    expect(await everything(pool)).toEqual(before);
  }
});

describe('nothing stays after', () => {
  test.each<[string, RegExp, (pool: Pool) => unknown]>([
    [
      'a refusal',
      /SR_BACKEND_FAILURE_44/,
      ({ simulator }) =>
        simulator.fault('call-error', { method: 'VM.snapshot', code: 'SR_BACKEND_FAILURE_44', params: ['', '', ''] }),
    ],
    [
      'an answer that was lost while the host went on',
      /./,
      ({ simulator }) => simulator.fault('drop-connection', { method: 'Async.VM.snapshot', when: 'after', times: 100 }),
    ],
    [
      'a mark that cannot be written',
      /RBAC_PERMISSION_DENIED/,
      ({ simulator }) =>
        simulator.fault('call-error', { method: 'VDI.add_to_other_config', code: 'RBAC_PERMISSION_DENIED' }),
    ],
    [
      'an intent that cannot be written',
      /RBAC_PERMISSION_DENIED/,
      ({ simulator }) =>
        simulator.fault('call-error', { method: 'VM.add_to_other_config', code: 'RBAC_PERMISSION_DENIED' }),
    ],
  ])('%s', async (_, message, arm) => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    arm(pool);
    await expect(take(pool, vm)).rejects.toThrow(message);
    await settled(pool, vm);
    // a task whose reference was lost is the host's to forget
    expect({ ...(await everything(pool)), tasks: [] }).toEqual(before);
    expect(await findLeftovers(pool.host)).toEqual([]);
  });

  test('an abort while the host snapshots', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    const stop = new AbortController();
    const host: Host = {
      ...pool.host,
      callAsync(method, args, options) {
        const answer = pool.host.callAsync<never>(method, args, options);
        if (method === 'VM.snapshot') stop.abort(new Error('enough'));
        return answer;
      },
    };
    const taking = take({ ...pool, host }, vm, { signal: stop.signal });
    await expect(taking).rejects.toThrow('enough');
    expect(await everything(pool)).toEqual(before);
  });
});

/** The host has ended what it does with the VM. */
async function settled({ host }: Pool, vm: Vm): Promise<void> {
  await expect.poll(async () => (await host.getRecord('VM', vm.uuid)).current_operations).toEqual({});
}

test('a disk that the host does not give up keeps no other one', async () => {
  await using pool = await startPool();
  const vm = await twoDiskVm(pool);
  const snapshot = await take(pool, vm, { runId: newRunId(), runner: DEAD });
  pool.simulator.fault('call-error', { method: 'VDI.destroy', code: 'INTERNAL_ERROR', params: ['oops'] });
  await expect(destroySnapshot(pool.host, snapshot.ref)).rejects.toMatchObject({ xapiCode: 'INTERNAL_ERROR' });
  const [first, second] = snapshot.disks;
  expect(await pool.host.findRecord('VDI', second!.snapshotVdiUuid)).toBeUndefined();
  expect(await findLeftovers(pool.host)).toMatchObject([{ kind: 'disk', uuid: first!.snapshotVdiUuid }]);
});

test('the failure told is the first, where clean-up fails, too', async () => {
  await using pool = await startPool();
  const vm = await twoDiskVm(pool);
  pool.simulator.fault('call-error', { method: 'VM.snapshot', code: 'VM_HAS_VUSBS' });
  pool.simulator.fault('call-error', { method: 'VM.get_all_records', code: 'INTERNAL_ERROR', params: ['later'] });
  await expect(take(pool, vm)).rejects.toMatchObject({ xapiCode: 'VM_HAS_VUSBS' });
});

test('two at once on one VM do not disturb each other', async () => {
  await using pool = await startPool();
  const vm = await twoDiskVm(pool);
  const before = await everything(pool);
  const [one, two] = await Promise.all([take(pool, vm), take(pool, vm)]);
  expect(one.uuid).not.toBe(two.uuid);
  expect((await everything(pool)).marks).toEqual([]);
  for (const snapshot of [one, two]) {
    expect(snapshot.disks).toHaveLength(2);
    await destroySnapshot(pool.host, snapshot.ref);
  }
  expect(await everything(pool)).toEqual(before);
});

describe('refused', () => {
  test.each<[string, object, object]>([
    ['a template', { is_a_template: true }, {}],
    ['a control domain', { is_control_domain: true }, {}],
    ['a VM whose snapshots are blocked', { blocked_operations: { snapshot: 'by me' } }, {}],
  ])('%s', async (_, record) => {
    await using pool = await startPool({ nbd: false });
    const vm = await pool.simulator.createVm({ powerState: 'Halted', record });
    await expect(take(pool, vm)).rejects.toMatchObject({ code: 'VM_NOT_SUPPORTED' });
    expect((await everything(pool)).marks).toEqual([]);
  });

  test('a snapshot, and the VM that runs this program', async () => {
    await using pool = await startPool({ nbd: false });
    const vm = await pool.simulator.createVm({ powerState: 'Halted' });
    await expect(take(pool, vm, { selfUuid: vm.uuid })).rejects.toMatchObject({ code: 'VM_NOT_SUPPORTED' });
    const snapshot = await take(pool, vm);
    const record = await pool.host.getRecord('VM', snapshot.uuid);
    await expect(takeSnapshot(pool.host, record, settings())).rejects.toMatchObject({ code: 'VM_NOT_SUPPORTED' });
    await expect(destroySnapshot(pool.host, vm.uuid)).rejects.toThrow('it is never destroyed');
  });
});

describe('a checkpoint', () => {
  test('has the memory, and is removed with it', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    const before = await everything(pool);
    const snapshot = await take(pool, vm, { checkpoint: true, excludeVdis: [vm.disks[1]!.uuid] });
    expect(snapshot.disks.map(({ vdiUuid }) => vdiUuid)).toEqual([vm.disks[0]!.uuid]);
    const taken = await pool.host.getRecord('VM', snapshot.ref);
    expect(taken).toMatchObject({ power_state: 'Suspended', is_a_snapshot: true });
    expect((await pool.host.getRecord('VDI', taken.suspend_VDI)).type).toBe('suspend');
    await destroySnapshot(pool.host, snapshot.ref);
    expect(await everything(pool)).toEqual(before);
  });

  test('is a snapshot of the disks where it cannot be had, and of a halted VM', async () => {
    await using pool = await startPool({ restrictions: ['restrict_checkpoint'] });
    const vm = await twoDiskVm(pool);
    const told: string[] = [];
    const observer = { fallBack: (...what: string[]) => void told.push(what.join(' ')), hookEnded() {}, warn() {} };
    const snapshot = await take(pool, vm, { checkpoint: true, observer });
    expect(told).toEqual([expect.stringMatching(/^vm checkpoint snapshot of the disks .*LICENCE_RESTRICTION/)]);
    expect(await pool.host.getRecord('VM', snapshot.ref)).toMatchObject({ power_state: 'Halted' });
    const halted = await pool.simulator.createVm({ powerState: 'Halted', disks: [{ size: 2 ** 22 }] });
    await take(pool, halted as Vm, { checkpoint: true });
    expect(pool.simulator.log.names().filter((name) => name === 'Async.VM.checkpoint')).toHaveLength(1);
    await expect(take(pool, vm, { checkpoint: true, quiesce: 'prefer' })).rejects.toThrow(TypeError);
  });
});

test('a disk whose chain is as long as it may be is refused before anything is done', async () => {
  await using pool = await startPool();
  const vm = await twoDiskVm(pool);
  const { world, refs } = pool.simulator;
  let parent: string | undefined;
  for (let depth = 1; depth < 30; depth++) {
    const sm_config = parent === undefined ? {} : { 'vhd-parent': parent };
    const node = world.addObject('VDI', { SR: refs.defaultSr, name_label: 'base copy', managed: false, sm_config });
    parent = world.getObject('VDI', node).uuid;
  }
  world.updateObject('VDI', vm.disks[1]!.vdi, { sm_config: { 'vhd-parent': parent! } });
  const before = await everything(pool);
  await expect(take(pool, vm)).rejects.toMatchObject({
    code: 'CHAIN_TOO_LONG',
    facts: { vdiUuid: vm.disks[1]!.uuid, depth: 30 },
  });
  expect(await everything(pool)).toEqual(before);
  expect((await take(pool, vm, { excludeVdis: [vm.disks[1]!.uuid] })).disks).toHaveLength(1);
});
