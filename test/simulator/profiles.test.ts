import { expect, test } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
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
