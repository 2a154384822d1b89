import { expect, test } from 'vitest';
import { systemClock } from '../../src/core/index.ts';
import type { Host } from '../../src/host/index.ts';
import {
  destroySnapshot,
  findLeftovers,
  intentKey,
  startRun,
  takeSnapshot,
  writeMark,
} from '../../src/snapshot/index.ts';
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
  simulator.fault('quiesce', { halfMade: 'vm' });
  simulator.fault('call-error', { method: 'VM.destroy', code: 'INTERNAL_ERROR', params: ['oops'] });
  const warnings: string[] = [];
  const observer = { warn: (code: string) => void warnings.push(code), fallBack() {}, hookEnded() {} };
  const snapshot = await take(pool, vm.uuid, { observer, runner: DEAD, runId: newRunId() });
  expect(snapshot.consistency.achieved).toBe('crash-consistent');
  expect(warnings).toEqual(['SNAPSHOT_LEFT']);
  const found = (await findLeftovers(host)).filter(({ uuid }) => uuid !== snapshot.uuid);
  expect(found).toMatchObject([{ kind: 'snapshot' }]);
});

test('what the tools of another run, or of nobody we know, made is left alone', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const { host, simulator } = pool;
  const vm = await vmWithTools(pool);
  const plain = async (name: string) => {
    const ref = await host.callAsync<string>('VM.snapshot', [vm.ref, name]);
    return (await host.getRecord('VM', ref)).uuid;
  };
  const ofTools = `Snapshot of ${vm.uuid} [20261126T120000Z]`;
  const kept = [await plain(ofTools), await plain('by hand')];
  // Taken while two runs are at it: it may be the other one's.
  const runId = newRunId();
  await writeMark(host, 'VM', vm.ref, intentKey(runId), {});
  await writeMark(host, 'VM', vm.ref, intentKey(newRunId()), {});
  kept.push(await plain(ofTools));
  // Its name and intent say that it is this run's, but it is of another VM.
  const other = await vmWithTools(pool);
  await writeMark(host, 'VM', other.ref, intentKey(runId), {});
  const foreign = await host.callAsync<string>('VM.snapshot', [other.ref, ofTools]);
  kept.push((await host.getRecord('VM', foreign)).uuid);
  simulator.fault('quiesce', {});
  await take(pool, vm.uuid, { runId });
  for (const uuid of kept) expect(await host.findRecord('VM', uuid)).toBeDefined();
});

test('an abort while the tools are at it leaves nothing', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const vm = await vmWithTools(pool);
  const before = await everything(pool);
  const stop = new AbortController();
  const host: Host = {
    ...pool.host,
    async callAsync(method, args, options) {
      const answer = await pool.host.callAsync<never>(method, args, { ...options, signal: undefined });
      if (method !== 'VM.snapshot_with_quiesce') return answer;
      // The host was about to give it the run's name.
      await pool.host.call('VM.set_name_label', answer, `Snapshot of ${vm.uuid} [20261126T120000Z]`);
      stop.abort(new Error('enough'));
      throw stop.signal.reason;
    },
  };
  await expect(take({ ...pool, host }, vm.uuid, { signal: stop.signal })).rejects.toThrow('enough');
  expect(await everything(pool)).toEqual(before);
});

test('loose snapshots of disks are told, and left: nothing proves whose they are', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const { host, simulator } = pool;
  const vm = await vmWithTools(pool);
  await host.callAsync('VDI.snapshot', [vm.disks[0]!.vdi]); // of somebody else, and before
  simulator.fault('quiesce', { halfMade: 'disks' });
  const warnings: string[] = [];
  const observer = { warn: (_: string, message: string) => void warnings.push(message), fallBack() {}, hookEnded() {} };
  const snapshot = await take(pool, vm.uuid, { observer });
  const ours = new Set(snapshot.disks.map((disk) => disk.snapshotVdiUuid));
  const loose = (await host.listRecords('VDI')).filter((vdi) => vdi.is_a_snapshot && !ours.has(vdi.uuid));
  expect(loose).toHaveLength(3);
  expect(warnings).toHaveLength(1);
  expect(loose.filter(({ uuid }) => warnings[0]!.includes(uuid))).toHaveLength(2);
});

test.each<[string, object, object, RegExp]>([
  ['a licence without VSS', { restrictions: ['restrict_vss'] }, {}, /licence.*LICENCE_RESTRICTION, VSS/],
  ['somebody who blocked it', {}, { snapshot_with_quiesce: 'not here' }, /blocked.*OPERATION_BLOCKED, not here/],
])('%s', async (_, options, blocked, reason) => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false, ...options });
  const vm = await vmWithTools(pool);
  await pool.host.call('VM.set_blocked_operations', vm.ref, blocked);
  const { consistency } = await take(pool, vm.uuid);
  expect(consistency).toMatchObject({ achieved: 'crash-consistent', reason: expect.stringMatching(reason) });
});

test.each(['SR_BACKEND_FAILURE_44', 'SR_BACKEND_FAILURE_109'])(
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

test('the time of a snapshot is that of the call that made it', async () => {
  await using pool = await startPool({ profile: 'citrix-hypervisor-8.0', nbd: false });
  const vm = await vmWithTools(pool);
  let now = 1_000_000;
  const clock = { ...systemClock, now: () => now };
  const before = {
    run() {
      now += 1000; // freezing takes its time, too
    },
  };
  expect((await take(pool, vm.uuid, { clock, hooks: { before } })).takenAt).toBe(1_001_000);
  const host: Host = {
    ...pool.host,
    callAsync(method, args, options) {
      if (method === 'VM.snapshot_with_quiesce') now += 600_000;
      return pool.host.callAsync(method, args, options);
    },
  };
  pool.simulator.fault('quiesce', { code: 'VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT' });
  expect((await take({ ...pool, host }, vm.uuid, { clock })).takenAt).toBe(1_601_000);
});
