import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { callOnce, connect, logIn, send } from './client.ts';

test('xen-api logs in, sees objects and their changes, and gets typed errors', async () => {
  await using simulator = await startSimulator();
  await using client = await connect(simulator);
  const { xapi } = client;
  const pool = await xapi.objectsFetched.then(() => xapi.pool);
  expect(pool.name_label).toBe('simulated pool');

  const changed = new Promise<string>((resolve) => {
    xapi.objects.on('update', (updated) => {
      for (const object of Object.values(updated)) {
        if (object?.$type === 'pool' && object.name_label !== 'simulated pool') resolve(object.name_label);
      }
    });
  });
  await xapi.call('pool.set_name_label', pool.$ref, 'renamed');
  expect(await changed).toBe('renamed');

  await expect(xapi.call('VM.get_record', 'OpaqueRef:nothing')).rejects.toMatchObject({
    code: 'HANDLE_INVALID',
    params: ['VM', 'OpaqueRef:nothing'],
  });
});

test('xen-api runs Async calls and learns their results and failures from the tasks', async () => {
  await using simulator = await startSimulator();
  const vm = await simulator.createVm({ disks: [{ size: 4 * 1024 * 1024 }] });
  await using client = await connect(simulator);
  const snapshot = await client.xapi.callAsync('VM.snapshot', vm.ref, 'from xen-api');
  expect(simulator.world.getObject('VM', snapshot as string).snapshot_of).toBe(vm.ref);
  await expect(client.xapi.callAsync('VM.destroy', vm.ref)).rejects.toMatchObject({
    code: 'VM_BAD_POWER_STATE',
    params: [vm.ref, 'halted', 'running'],
  });
});

test('the log names every call, and holds no session and no password', async () => {
  await using simulator = await startSimulator({ password: 'correct horse' });
  const { call, session } = await logIn(simulator);
  await call('pool.get_all');
  await send(simulator, `/nothing?session_id=${session}&x=1`);
  expect(simulator.log.names()).toEqual(['session.login_with_password', 'pool.get_all', 'GET /nothing']);
  expect(simulator.log.entries.at(-1)?.query).toEqual({ x: '1' });
  const text = JSON.stringify(simulator.log.entries);
  expect(text).not.toContain(session);
  expect(text).not.toContain('correct horse');
});

test('wrong credentials, dead sessions, unknown methods and wrong counts are refused in the words of a host', async () => {
  await using simulator = await startSimulator();
  await expect(callOnce(simulator, 'session.login_with_password', 'root', 'wrong')).rejects.toMatchObject({
    code: 'SESSION_AUTHENTICATION_FAILED',
    params: ['root', 'Authentication failure'],
  });
  const { call, session } = await logIn(simulator);
  await expect(call('VM.explode', 'x')).rejects.toMatchObject({
    code: 'MESSAGE_METHOD_UNKNOWN',
    params: ['VM.explode'],
  });
  await expect(call('Async.VDI.get_nbd_info', 'x')).rejects.toMatchObject({ code: 'MESSAGE_METHOD_UNKNOWN' });
  await expect(call('VDI.destroy')).rejects.toMatchObject({
    code: 'MESSAGE_PARAMETER_COUNT_MISMATCH',
    params: ['VDI.destroy', '1', '0'],
  });
  await expect(call('VM.get_by_uuid', 'nobody')).rejects.toMatchObject({
    code: 'UUID_INVALID',
    params: ['VM', 'nobody'],
  });
  await call('session.logout');
  await expect(call('pool.get_all')).rejects.toMatchObject({ code: 'SESSION_INVALID', params: [session] });
});

test('a map refuses a key that it has, and a field takes only what it holds', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  const { pool } = simulator.refs;
  await call('pool.add_to_other_config', pool, 'mark', '1');
  await expect(call('pool.add_to_other_config', pool, 'mark', '2')).rejects.toMatchObject({
    code: 'MAP_DUPLICATE_KEY',
    params: ['pool', 'other_config', pool, 'mark'],
  });
  await call('pool.remove_from_other_config', pool, 'mark');
  await call('pool.remove_from_other_config', pool, 'mark');
  expect(await call('pool.get_other_config', pool)).toEqual({});
  await expect(call('pool.set_other_config', pool, 'text')).rejects.toMatchObject({ code: 'INTERNAL_ERROR' });
  await expect(call('pool.set_uuid', pool, 'x')).rejects.toMatchObject({ code: 'MESSAGE_METHOD_UNKNOWN' });
});

test('event.from gives everything once, then waits; changes of one object are one event', async () => {
  await using simulator = await startSimulator({ timing: { eventBatchMs: 5 } });
  const { call } = await logIn(simulator);
  type From = {
    events: { class: string; operation: string; ref: string; snapshot?: Record<string, unknown> }[];
    token: string;
    valid_ref_counts: Record<string, number>;
  };
  const first = await call<From>('event.from', ['vm', 'SR'], '', 1);
  expect(new Set(first.events.map(({ operation }) => operation))).toEqual(new Set(['add']));
  expect(new Set(first.events.map((event) => event.class))).toEqual(new Set(['vm', 'sr']));
  expect(first.valid_ref_counts).toMatchObject({ pool: 1, vm: 1, vdi: 0 });
  expect(first.token).toMatch(/^\d{20},\d{20}$/);

  const quiet = await call<From>('event.from', ['vm'], first.token, 0.05);
  expect(quiet.events).toEqual([]);

  const waiting = call<From>('event.from', [`vm/${simulator.refs.controlDomain}`], quiet.token, 30);
  await call('VM.set_name_description', simulator.refs.controlDomain, 'one');
  await call('VM.set_name_description', simulator.refs.controlDomain, 'two');
  const { events } = await waiting;
  expect(events).toMatchObject([{ class: 'vm', operation: 'mod', ref: simulator.refs.controlDomain }]);

  const task = await call<string>('task.create', 'a', '');
  const before = (await call<From>('event.from', ['task'], '', 1)).token;
  await call('task.destroy', task);
  const gone = await call<From>('event.from', ['task'], before, 5);
  expect(gone.events).toMatchObject([{ operation: 'del', ref: task }]);
  expect(gone.events[0]?.snapshot).toBeUndefined();

  await expect(call('event.from', ['*'], 'nonsense', 1)).rejects.toMatchObject({
    code: 'EVENT_FROM_TOKEN_PARSE_FAILURE',
    params: ['nonsense'],
  });
  const barrier = await call<string>('event.inject', 'pool', simulator.refs.pool);
  expect((await call<From>('event.from', ['pool'], barrier, 5)).events).toHaveLength(1);
});

test('a session that ends takes its waiting event.from along', async () => {
  await using simulator = await startSimulator();
  const { call, session } = await logIn(simulator);
  const { token } = await call<{ token: string }>('event.from', ['pool'], '', 1);
  const waiting = expect(call('event.from', ['pool'], token, 60)).rejects.toMatchObject({
    code: 'SESSION_INVALID',
    params: [session],
  });
  await call('session.logout');
  await waiting;
});

test('errors are objects in JSON-RPC 2 and arrays in JSON-RPC 1', async () => {
  await using simulator = await startSimulator();
  const ask = async (envelope: object) => {
    const body = JSON.stringify({ method: 'VM.explode', params: [], id: 7, ...envelope });
    const { body: answer } = await send(simulator, '/jsonrpc', {
      method: 'POST',
      headers: { 'content-length': String(body.length) },
      body,
    });
    return JSON.parse(answer.toString()) as unknown;
  };
  expect(await ask({ jsonrpc: '2.0' })).toEqual({
    jsonrpc: '2.0',
    error: { code: 1, message: 'MESSAGE_METHOD_UNKNOWN', data: ['VM.explode'] },
    id: 7,
  });
  expect(await ask({})).toEqual({ result: null, error: ['MESSAGE_METHOD_UNKNOWN', 'VM.explode'], id: 7 });
});

test('what is no call gets HTTP 500, unknown paths 403, long heads 431, chunked calls 500', async () => {
  await using simulator = await startSimulator();
  const post = (body: string, headers: Record<string, string>) =>
    send(simulator, '/jsonrpc', { method: 'POST', headers, body });
  expect((await post('{', { 'content-length': '1' })).status).toBe(500);
  expect((await post('{}', { 'transfer-encoding': 'chunked' })).status).toBe(500);
  expect((await send(simulator, '/elsewhere')).status).toBe(403);
  expect((await send(simulator, `/${'x'.repeat(800)}`)).status).toBe(403);
  expect((await send(simulator, `/${'x'.repeat(950)}`)).status).toBe(431);
  expect((await send(simulator, `/${'x'.repeat(2000)}`)).status).toBe(431);
});

test('faults strike as often as they were told to', async () => {
  await using simulator = await startSimulator();
  const { call } = await logIn(simulator);
  simulator.fault('call-error', { method: 'pool.get_all', code: 'HOST_STILL_BOOTING', times: 2 });
  await expect(call('pool.get_all')).rejects.toMatchObject({ code: 'HOST_STILL_BOOTING', params: [] });
  await expect(call('pool.get_all')).rejects.toMatchObject({ code: 'HOST_STILL_BOOTING' });
  expect(await call('pool.get_all')).toEqual([simulator.refs.pool]);

  simulator.fault('drop-connection', { method: 'task.create', when: 'after' });
  await expect(call('task.create', 'ghost', '')).rejects.toMatchObject({ code: 'ECONNRESET' });
  expect(await call<string[]>('task.get_by_name_label', 'ghost')).toHaveLength(1);
  const disarm = simulator.fault('drop-connection', { method: 'task.create' });
  await expect(call('task.create', 'never', '')).rejects.toMatchObject({ code: 'ECONNRESET' });
  disarm();
  expect(await call<string[]>('task.get_by_name_label', 'never')).toHaveLength(0);

  simulator.fault('session-lost', {});
  await expect(call('pool.get_all')).rejects.toMatchObject({ code: 'SESSION_INVALID' });
});

test('a task that its client cancels ends as cancelled', async () => {
  await using simulator = await startSimulator();
  const vm = await simulator.createVm();
  const { call, endOf } = await logIn(simulator);
  simulator.world.updateObject('VM', vm.ref, { current_operations: { someone: 'export' } });
  const task = await call<string>('Async.VM.snapshot', vm.ref, 'waits for the export');
  expect(await call('task.get_status', task)).toBe('pending');
  await call('task.cancel', task);
  expect(await endOf(task)).toMatchObject({ status: 'cancelled', error_info: ['TASK_CANCELLED', task] });
});

test.runIf(hasTool('curl'))(
  'curl trusts the certificate, makes a call, and is refused with a wrong password',
  async () => {
    await using simulator = await startSimulator();
    const ca = `${simulator.world.directory}/ca.pem`;
    await writeFile(ca, simulator.certificate);
    const call = { jsonrpc: '2.0', id: 1, method: 'session.login_with_password', params: ['root', 'simulated'] };
    const curl = spawn('curl', ['-sS', '--cacert', ca, '-d', JSON.stringify(call), `${simulator.url}/jsonrpc`]);
    expect(JSON.parse(await text(curl.stdout))).toMatchObject({ result: expect.stringMatching(/^OpaqueRef:/) });
    const download = ['-sS', '-o', '/dev/null', '-w', '%{http_code}', '--cacert', ca, '-u', 'root:wrong'];
    const refused = spawn('curl', [...download, `${simulator.url}/export_raw_vdi?vdi=x`]);
    expect(await text(refused.stdout)).toBe('401');
  },
);
