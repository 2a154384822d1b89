import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
import { logIn } from './client.ts';

const MIB = 1024 * 1024;
const KIB_64 = 64 * 1024;
const NULL_REF = 'OpaqueRef:NULL';

test('a snapshot is a halted template with disks of its own that stay as they were', async () => {
  await using simulator = await startSimulator();
  const { world } = simulator;
  const { call } = await logIn(simulator);
  const vm = await simulator.createVm({
    disks: [{ size: 8 * MIB }, { size: 4 * MIB }],
    cd: 'iso',
    vtpm: 'c3RhdGU=',
    record: { blocked_operations: { destroy: 'precious' }, tags: ['gold'] },
  });
  const [first, second] = vm.disks;
  await simulator.writeDisk(vm.uuid, '0', MIB, randomBytes(MIB));
  await call('VDI.add_to_other_config', first!.vdi, 'mark', 'travels');
  const before = await simulator.hashDisk(first!.vdi);

  const ref = await call<string>('VM.snapshot', vm.ref, 'point');
  const snapshot = world.getObject('VM', ref);
  const source = world.getObject('VM', vm.ref);
  expect(snapshot).toMatchObject({
    name_label: 'point',
    is_a_template: true,
    is_a_snapshot: true,
    snapshot_of: vm.ref,
    power_state: 'Halted',
    blocked_operations: {},
    other_config: source.other_config,
    tags: ['gold'],
    snapshot_info: { 'power-state-at-snapshot': 'Running', 'disk-snapshot-type': 'crash_consistent' },
  });
  expect(source).toMatchObject({ parent: ref, snapshots: [ref], power_state: 'Running', is_a_snapshot: false });
  expect(snapshot.snapshot_metadata).toContain(vm.uuid);

  const vbds = snapshot.VBDs.map((vbd) => world.getObject('VBD', vbd));
  expect(vbds.map(({ userdevice }) => userdevice)).toEqual(['0', '1', '3']);
  expect(vbds.every((vbd) => !vbd.currently_attached)).toBe(true);
  const disk = world.getObject('VDI', vbds[0]!.VDI);
  expect(disk).toMatchObject({
    is_a_snapshot: true,
    snapshot_of: first!.vdi,
    virtual_size: 8 * MIB,
    other_config: { mark: 'travels' },
    cbt_enabled: false,
  });
  expect(disk.uuid).not.toBe(first!.uuid);
  expect(world.getObject('VDI', vbds[2]!.VDI).snapshot_of).toBe(NULL_REF); // the very same CD
  expect(snapshot.VIFs.map((vif) => world.getObject('VIF', vif).MAC)).toEqual(
    source.VIFs.map((vif) => world.getObject('VIF', vif).MAC),
  );
  expect(world.tpmContents.get(snapshot.VTPMs[0]!)).toBe('c3RhdGU=');

  await simulator.writeDisk(vm.uuid, '0', 0, randomBytes(MIB));
  expect(await simulator.hashDisk(vbds[0]!.VDI)).toBe(before);
  expect(await simulator.hashDisk(first!.vdi)).not.toBe(before);
  const bases = [...world.objects('VDI')].filter(([, vdi]) => !vdi.managed);
  expect(bases).toMatchObject([[expect.anything(), { name_label: 'base copy' }]]); // the second disk had no data

  await call('VM.destroy', ref);
  expect(world.findObject('VM', ref)).toBeUndefined();
  expect(world.findObject('VDI', vbds[0]!.VDI)).toBeDefined(); // disks always stay
  await call('VDI.destroy', vbds[0]!.VDI);
  await call('VDI.destroy', vbds[1]!.VDI);
  expect(world.getObject('VDI', first!.vdi).snapshots).toEqual([]);
  expect(world.getObject('VDI', second!.vdi).snapshots).toEqual([]);
});

test('disks can be left out of a snapshot; one that fails takes the others back', async () => {
  await using simulator = await startSimulator();
  const { call, callAsync } = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }, { size: 4 * MIB, record: { sharable: true } }] });
  const [, shared] = vm.disks;
  await expect(call('VM.snapshot', vm.ref, 'all')).rejects.toMatchObject({
    code: 'VDI_IS_SHARABLE',
    params: [shared!.vdi],
  });
  expect([...simulator.world.objects('VDI')]).toHaveLength(2);
  const result = await callAsync('VM.snapshot', vm.ref, 'one', [shared!.vdi]);
  const ref = /^<value>(OpaqueRef:[^<]+)<\/value>$/.exec(result)?.[1];
  expect(simulator.world.getObject('VM', ref!).VBDs).toHaveLength(1);
});

test('a blocked operation gives the reason of whoever blocked it', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  const vm = await simulator.createVm();
  await call('VM.set_blocked_operations', vm.ref, { snapshot: 'not now' });
  await expect(call('VM.snapshot', vm.ref, 'x')).rejects.toMatchObject({
    code: 'OPERATION_BLOCKED',
    params: [vm.ref, 'not now'],
  });
});

test('quiesced snapshots were removed from this release', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  const vm = await simulator.createVm();
  await expect(call('VM.snapshot_with_quiesce', vm.ref, 'x')).rejects.toMatchObject({
    code: 'MESSAGE_REMOVED',
    params: [],
  });
});

/** A machine with one tracked disk, and its snapshots. */
async function trackedVm(simulator: Awaited<ReturnType<typeof startSimulator>>, size = 8 * MIB) {
  const session = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size }] });
  const [disk] = vm.disks;
  await session.callAsync('VDI.enable_cbt', disk!.vdi);
  return {
    ...session,
    vm,
    disk: disk!,
    write: (block: number, bytes: Uint8Array = randomBytes(KIB_64)) =>
      simulator.writeDisk(vm.uuid, '0', block * KIB_64, bytes),
    async snapshot(name: string) {
      const ref = await session.call<string>('VM.snapshot', vm.ref, name);
      const [vbd] = simulator.world.getObject('VM', ref).VBDs;
      return { vm: ref, vdi: simulator.world.getObject('VBD', vbd!).VDI };
    },
    async changed(from: string, to: string) {
      const bits = Buffer.from(await session.call<string>('VDI.list_changed_blocks', from, to), 'base64');
      const blocks = [];
      for (let i = 0; i < bits.length * 8; i++) if (bits[i >> 3]! & (0x80 >> (i & 7))) blocks.push(i);
      return { bytes: bits.length, blocks };
    },
  };
}

test('changed blocks are those written between two snapshots, most significant bit first', async () => {
  await using simulator = await startSimulator();
  const { write, snapshot, changed, call, disk } = await trackedVm(simulator);
  await write(3);
  const s1 = await snapshot('1');
  expect(simulator.world.getObject('VDI', s1.vdi).cbt_enabled).toBe(true);
  await write(0);
  await write(9, new Uint8Array(KIB_64)); // zeros are writes, too
  const s2 = await snapshot('2');
  await simulator.writeDisk(disk.vdi, undefined, 127 * KIB_64 + 100, Uint8Array.of(1));
  const s3 = await snapshot('3');
  expect(await changed(s1.vdi, s2.vdi)).toEqual({ bytes: 16, blocks: [0, 9] });
  expect(await changed(s2.vdi, s3.vdi)).toEqual({ bytes: 16, blocks: [127] });
  expect(await changed(s1.vdi, s3.vdi)).toEqual({ bytes: 16, blocks: [0, 9, 127] });
  for (const [from, to] of [
    [s2.vdi, s1.vdi],
    [s1.vdi, s1.vdi],
  ]) {
    await expect(call('VDI.list_changed_blocks', from, to)).rejects.toMatchObject({
      code: 'SR_BACKEND_FAILURE_460',
      params: ['', expect.stringContaining('Source and target VDI are'), ''],
    });
  }
  await expect(call('VDI.list_changed_blocks', s3.vdi, disk.vdi)).rejects.toMatchObject({
    code: 'VDI_IN_USE',
    params: [disk.vdi, 'list_changed_blocks'],
  });
});

test('the loop that works: data goes, the bitmap stays, and the chain survives the loss of a link', async () => {
  await using simulator = await startSimulator({ timing: { dataDestroyWaitMs: 50 } });
  const { write, snapshot, changed, call } = await trackedVm(simulator);
  const s1 = await snapshot('1');
  await write(1);
  const s2 = await snapshot('2');
  await write(2);

  await expect(call('VDI.data_destroy', s1.vdi)).rejects.toMatchObject({
    code: 'VDI_IN_USE',
    params: [s1.vdi, 'data_destroy'],
  });
  await call('VM.destroy', s1.vm);
  await call('VDI.data_destroy', s1.vdi);
  await call('VDI.data_destroy', s1.vdi); // idempotent
  expect(simulator.world.getObject('VDI', s1.vdi)).toMatchObject({ type: 'cbt_metadata', cbt_enabled: true });
  expect(simulator.world.findImage(s1.vdi)).toBeUndefined();
  expect((await changed(s1.vdi, s2.vdi)).blocks).toEqual([1]);

  const s3 = await snapshot('3');
  await call('VM.destroy', s2.vm);
  await call('VDI.destroy', s2.vdi);
  expect((await changed(s1.vdi, s3.vdi)).blocks).toEqual([1, 2]);
  await write(4);
  const s4 = await snapshot('4');
  expect((await changed(s1.vdi, s4.vdi)).blocks).toEqual([1, 2, 4]);

  for (const method of ['VDI.clone', 'VDI.snapshot', 'VDI.disable_cbt', 'VDI.get_nbd_info']) {
    await expect(call(method, s1.vdi), method).rejects.toMatchObject({
      code: 'VDI_INCOMPATIBLE_TYPE',
      params: [s1.vdi, 'cbt_metadata'],
    });
  }
  await expect(call('VDI.resize', s1.vdi, 16 * MIB)).rejects.toMatchObject({ code: 'VDI_INCOMPATIBLE_TYPE' });
  await call('VDI.set_name_label', s1.vdi, 'renamed');
  await call('VDI.destroy', s1.vdi);
  expect(simulator.world.findObject('VDI', s1.vdi)).toBeUndefined();
});

test('what cannot be tracked or thrown away is refused', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  const { world } = simulator;
  const vm = await simulator.createVm({
    disks: [{ size: 4 * MIB }, { size: 4 * MIB, record: { sm_config: { type: 'raw' } } }],
    cd: 'iso',
  });
  const [plain, raw] = vm.disks;
  const [iso] = world.getObject('SR', simulator.refs.isoSr).VDIs;
  const ref = await call<string>('VDI.snapshot', plain!.vdi);
  await expect(call('VDI.data_destroy', ref)).rejects.toMatchObject({ code: 'VDI_NO_CBT_METADATA', params: [ref] });
  await expect(call('VDI.data_destroy', plain!.vdi)).rejects.toMatchObject({ code: 'OPERATION_NOT_ALLOWED' });
  await expect(call('VDI.enable_cbt', ref)).rejects.toMatchObject({ code: 'OPERATION_NOT_ALLOWED' });
  await expect(call('VDI.enable_cbt', raw!.vdi)).rejects.toMatchObject({ code: 'SR_BACKEND_FAILURE_66' });
  await expect(call('VDI.enable_cbt', iso)).rejects.toMatchObject({
    code: 'SR_OPERATION_NOT_SUPPORTED',
    params: [simulator.refs.isoSr],
  });
  await expect(call('VM.snapshot', vm.ref, 'x')).rejects.toMatchObject({ code: 'UNIMPLEMENTED_IN_SM_BACKEND' });
  world.updateObject('VDI', plain!.vdi, { on_boot: 'reset' });
  await expect(call('VDI.enable_cbt', plain!.vdi)).rejects.toMatchObject({
    code: 'VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION',
  });
  world.updateObject('pool', simulator.refs.pool, { restrictions: { restrict_cbt: 'true' } });
  await expect(call('VDI.enable_cbt', plain!.vdi)).rejects.toMatchObject({
    code: 'LICENCE_RESTRICTION',
    params: ['CBT'],
  });
});

test('turning tracking off and on again breaks the chain', async () => {
  await using simulator = await startSimulator();
  const { snapshot, call, disk } = await trackedVm(simulator);
  const s1 = await snapshot('1');
  await call('VDI.disable_cbt', disk.vdi);
  await call('VDI.enable_cbt', disk.vdi);
  const s2 = await snapshot('2');
  await expect(call('VDI.list_changed_blocks', s1.vdi, s2.vdi)).rejects.toMatchObject({
    code: 'SR_BACKEND_FAILURE_460',
  });
});

test('a grown disk reports in its new size', async () => {
  await using simulator = await startSimulator();
  const { snapshot, changed, write, call, vm, disk } = await trackedVm(simulator);
  const s1 = await snapshot('1');
  await expect(call('VDI.resize', disk.vdi, 16 * MIB)).rejects.toMatchObject({
    code: 'VDI_IN_USE',
    params: [disk.vdi, 'resize'],
  });
  await call('VM.hard_shutdown', vm.ref);
  await call('VDI.resize', disk.vdi, 16 * MIB);
  await expect(call('VDI.resize', disk.vdi, 8 * MIB)).rejects.toMatchObject({ code: 'SR_BACKEND_FAILURE_79' });
  await write(200);
  const s2 = await snapshot('2');
  expect(await changed(s1.vdi, s2.vdi)).toEqual({ bytes: 32, blocks: [200] });
  await write(201);
  expect((await changed(s1.vdi, disk.vdi)).blocks).toEqual([200, 201]); // live, but not attached
});

test('a reverted machine has new disks without tracking', async () => {
  await using simulator = await startSimulator();
  const { snapshot, write, call, vm, disk } = await trackedVm(simulator);
  await write(5);
  const before = await simulator.hashDisk(disk.vdi);
  const s1 = await snapshot('1');
  await write(5);
  await call('VM.revert', s1.vm);
  const [vbd] = simulator.world.getObject('VM', vm.ref).VBDs;
  const { VDI } = simulator.world.getObject('VBD', vbd!);
  expect(VDI).not.toBe(disk.vdi);
  expect(simulator.world.findObject('VDI', disk.vdi)).toBeUndefined();
  expect(simulator.world.getObject('VDI', VDI)).toMatchObject({ cbt_enabled: false, is_a_snapshot: false });
  expect(simulator.world.getObject('VDI', s1.vdi).snapshot_of).toBe(VDI);
  expect(await simulator.hashDisk(VDI)).toBe(before);
});
