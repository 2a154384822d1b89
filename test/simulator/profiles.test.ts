import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import { logIn, send } from './client.ts';

test('XenServer 7.2 knows no changed blocks and no NBD, and writes errors as arrays', async () => {
  await using simulator = await startSimulator({ profile: 'xenserver-7.2' });
  const { username, password } = simulator;
  const ask = async (method: string, ...params: unknown[]) => {
    const body = JSON.stringify({ jsonrpc: '2.0', method, params, id: 1 });
    const headers = { 'content-length': String(Buffer.byteLength(body)) };
    const answer = await send(simulator, '/jsonrpc', { method: 'POST', headers, body });
    return JSON.parse(answer.body.toString()) as { result?: unknown; error?: unknown };
  };
  const { result: session } = await ask('session.login_with_password', username, password);
  const vm = await simulator.createVm({ disks: [{ size: 4 * 1024 * 1024 }] });
  const vdi = vm.disks[0]!.vdi;
  expect((await ask('VDI.enable_cbt', session, vdi)).error).toEqual(['MESSAGE_METHOD_UNKNOWN', 'VDI.enable_cbt']);
  expect((await ask('VDI.get_nbd_info', session, vdi)).error).toEqual(['MESSAGE_METHOD_UNKNOWN', 'VDI.get_nbd_info']);
  expect((await ask('VDI.get_record', session, vdi)).result).not.toHaveProperty('cbt_enabled');
  expect((await ask('VM.snapshot', session, vm.ref, 'x', [vdi])).error).toEqual([
    'MESSAGE_PARAMETER_COUNT_MISMATCH',
    'VM.snapshot',
    '2',
    '3',
  ]);
  const { result: snapshot } = await ask('VM.snapshot', session, vm.ref, 'x');
  expect((await ask('VM.get_record', session, snapshot)).result).toMatchObject({ is_a_snapshot: true });
  expect((await ask('VM.snapshot_with_quiesce', session, vm.ref, 'x')).error).toEqual([
    'VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED',
    vm.ref,
  ]);
  expect((await send(simulator, `/${'x'.repeat(3000)}`)).status).toBe(403); // no limit for heads yet
});

test.each([
  ['xcp-ng-8.3', '8.3.0', 21],
  ['xcp-ng-8.2', '8.2.1', 15],
  ['xenserver-8', '8.4.0', 21],
  ['citrix-hypervisor-8.2', '8.2.1', 15],
  ['citrix-hypervisor-8.0', '8.0.0', 12],
  ['xenserver-7.3', '7.3.0', 8],
  ['xenserver-7.2', '7.2.0', 7],
] as const)('%s says which release it is', async (profile, version, minor) => {
  await using simulator = await startSimulator({ profile });
  const { call } = await logIn(simulator);
  const host = await call<Record<string, unknown>>('host.get_record', simulator.refs.host);
  expect(host).toMatchObject({
    API_version_major: 2,
    API_version_minor: minor,
    software_version: { product_version: version },
  });
  const restrictions = await call<Record<string, string>>('pool.get_restrictions', simulator.refs.pool);
  expect(restrictions['restrict_cbt']).toBe(profile === 'xenserver-7.2' ? undefined : 'false');
});

test.each([
  ['xenserver-8', true, 'MESSAGE_REMOVED'],
  ['citrix-hypervisor-8.2', false, 'MESSAGE_REMOVED'],
  ['citrix-hypervisor-8.0', false, undefined],
  ['xenserver-7.3', false, undefined],
] as const)('%s: which snapshots it takes', async (profile, leavesDisksOut, refusal) => {
  await using simulator = await startSimulator({ profile });
  const { call } = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * 1024 * 1024 }], guestTools: 'vss' });
  const quiesced = call('VM.snapshot_with_quiesce', vm.ref, 'x');
  if (refusal === undefined) await expect(quiesced).resolves.toMatch(/^OpaqueRef:/);
  else await expect(quiesced).rejects.toMatchObject({ code: refusal });
  const without = call('VM.snapshot', vm.ref, 'x', [vm.disks[0]!.vdi]);
  if (leavesDisksOut) await expect(without).resolves.toMatch(/^OpaqueRef:/);
  else await expect(without).rejects.toMatchObject({ code: 'MESSAGE_PARAMETER_COUNT_MISMATCH' });
});

test('a licence without changed block tracking', async () => {
  await using simulator = await startSimulator({ restrictions: ['restrict_cbt'] });
  const { call } = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * 1024 * 1024 }] });
  const enabling = call('VDI.enable_cbt', vm.disks[0]!.vdi);
  await expect(enabling).rejects.toMatchObject({ code: 'LICENCE_RESTRICTION', params: ['CBT'] });
  expect(await call('pool.get_restrictions', simulator.refs.pool)).toMatchObject({ restrict_cbt: 'true' });
});

test('networks as they are asked for, and a port at which nothing listens', async () => {
  const networks = [{ purposes: ['nbd'] }, { address: '127.0.0.1', purposes: ['insecure_nbd'] }] as const;
  await using simulator = await startSimulator({ networks });
  const { call } = await logIn(simulator);
  const records = await call<Record<string, { purpose: string[] }>>('network.get_all_records');
  expect(Object.values(records).map(({ purpose }) => purpose)).toEqual([['nbd'], ['insecure_nbd']]);
  const vm = await simulator.createVm({ disks: [{ size: 4 * 1024 * 1024 }], powerState: 'Halted' });
  type Way = { address: string; port: number };
  simulator.fault('nbd-closed', {});
  const [closed] = await call<Way[]>('VDI.get_nbd_info', vm.disks[0]!.vdi);
  await expect(once(connect(closed!.port, closed!.address), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  const [open] = await call<Way[]>('VDI.get_nbd_info', vm.disks[0]!.vdi);
  expect(open).toMatchObject({ address: '127.0.0.1' });
  expect(open!.port).not.toBe(closed!.port);
  await expect(startSimulator({ networks: [] })).rejects.toThrow('at least one');
});

test('a restarted toolstack has forgotten its tasks, and says so in no event', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  await call('task.create', 'soon forgotten', '');
  type From = { events: unknown[]; token: string; valid_ref_counts: Record<string, number> };
  const before = await call<From>('event.from', ['task'], '', 1);
  expect(before.valid_ref_counts['task']).toBe(1);
  simulator.restartToolstack();
  const after = await call<From>('event.from', ['task'], before.token, 0.05);
  expect(after).toMatchObject({ events: [], valid_ref_counts: { task: 0 } });
});

test('a release that it does not play is refused, with those that it does', async () => {
  const options = { profile: 'xcp-ng-9' } as unknown as SimulatorOptions;
  await expect(startSimulator(options)).rejects.toThrow(/expected one of xcp-ng-8\.3, .*xenserver-7\.2, got xcp-ng-9$/);
});
