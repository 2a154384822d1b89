import { createHash, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { connect, logIn, send } from './client.ts';

const MIB = 1024 * 1024;

async function snapshotToExport(simulator: Simulator) {
  const session = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }] });
  const content = randomBytes(MIB);
  await simulator.writeDisk(vm.uuid, '0', 0, content);
  const vdi = await session.call<string>('VDI.snapshot', vm.disks[0]!.vdi);
  const task = await session.call<string>('task.create', 'export', '');
  const path = (query: Record<string, string> = {}) =>
    `/export_raw_vdi?${new URLSearchParams({ session_id: session.session, task_id: task, vdi, format: 'raw', ...query })}`;
  return { ...session, vm, vdi, task, content, path };
}

/** Waits until the control domain holds the disk, or has let go of it. */
async function untilHeld({ world }: Simulator, vdi: string, held: boolean): Promise<void> {
  const isHeld = () =>
    world.getObject('VDI', vdi).VBDs.some((vbd) => world.getObject('VBD', vbd).device.startsWith('sm/'));
  while (isHeld() !== held) await world.nextChange(world.generation);
}

test('an export says 200 at once, nothing of its length, and tells its end by the task', async () => {
  await using simulator = await startSimulator({ timing: { settleMs: 60_000 } });
  const { path, task, content, vdi, call, endOf } = await snapshotToExport(simulator);
  const { status, headers, body } = await send(simulator, path());
  expect(status).toBe(200);
  expect(headers).toMatchObject({ connection: 'close', 'task-id': task });
  expect(headers['content-length']).toBeUndefined();
  expect(headers['transfer-encoding']).toBeUndefined();
  expect(body.length).toBe(4 * MIB);
  expect(body.subarray(0, MIB).equals(content)).toBe(true);
  expect(await endOf(task)).toMatchObject({ status: 'success', progress: 1 });
  // The disk is the control domain's a moment longer.
  await expect(call('VDI.destroy', vdi)).rejects.toMatchObject({ code: 'VDI_IN_USE' });
});

test('without a task of the client there is one of the host, gone at the end', async () => {
  await using simulator = await startSimulator();
  const { session, vdi } = await snapshotToExport(simulator);
  const { status, headers } = await send(simulator, `/export_raw_vdi?vdi=${vdi}&format=raw`, {
    headers: { cookie: `session_id=${session}&x=y` },
  });
  expect(status).toBe(200);
  expect(simulator.world.findObject('task', headers['task-id'] as string)).toBeUndefined();
});

test('Basic credentials make a session for one request; wrong ones, none or dead ones get 401', async () => {
  await using simulator = await startSimulator({ password: 'a:b' });
  const { vdi, task, endOf, call } = await snapshotToExport(simulator);
  const sessions = () => [...simulator.world.objects('session')].length;
  const basic = (text: string) => ({ headers: { authorization: `Basic ${Buffer.from(text).toString('base64')}` } });
  const path = `/export_raw_vdi?vdi=${vdi}&task_id=${task}`;
  for (const options of [{}, basic('root:wrong'), { headers: { cookie: 'session_id=OpaqueRef:dead' } }]) {
    const { status, headers } = await send(simulator, path, options);
    expect(status).toBe(401);
    expect(headers['www-authenticate']).toMatch(/^Basic realm=/);
  }
  expect((await send(simulator, path, { headers: { authorization: 'Bearer x' } })).status).toBe(500);
  expect(await call('task.get_status', task)).toBe('pending'); // for ever
  expect((await send(simulator, path, basic('root:a:b'))).status).toBe(200);
  expect(await endOf(task)).toMatchObject({ status: 'success' });
  expect(sessions()).toBe(1);
});

test('a failure before the task is adopted is a bare 500, and the task stays pending', async () => {
  await using simulator = await startSimulator();
  const { path, task, call } = await snapshotToExport(simulator);
  const { status, body } = await send(simulator, path({ vdi: 'OpaqueRef:nothing' }));
  expect(status).toBe(500);
  expect(body.toString()).toContain('<html>');
  expect(await call('task.get_status', task)).toBe('pending');
});

test('a failure after the head is a second answer in the body, and in the task', async () => {
  await using simulator = await startSimulator();
  const { vm, path, task, endOf } = await snapshotToExport(simulator);
  const { status, body } = await send(simulator, path({ vdi: vm.disks[0]!.vdi })); // in use by the running machine
  expect(status).toBe(200);
  expect(body.toString()).toMatch(/^HTTP\/1\.1 500 Internal Error\r\n(.+\r\n)+\r\n<html>/);
  expect(await endOf(task)).toMatchObject({
    status: 'failure',
    error_info: ['SR_BACKEND_FAILURE_46', '', expect.anything(), ''],
  });
});

test('a failure in the middle follows the bytes that were sent', async () => {
  await using simulator = await startSimulator();
  const { path, task, endOf, content } = await snapshotToExport(simulator);
  simulator.fault('export-500', { after: 1000, code: 'VDI_IO_ERROR', params: ['Device I/O errors'] });
  const { status, body } = await send(simulator, path());
  expect(status).toBe(200);
  expect(body.subarray(0, 1000).equals(content.subarray(0, 1000))).toBe(true);
  expect(body.subarray(1000, 1012).toString()).toBe('HTTP/1.1 500');
  expect(await endOf(task)).toMatchObject({ status: 'failure', error_info: ['VDI_IO_ERROR', 'Device I/O errors'] });
});

test('a cut looks like an end; whether the task knows of it is another matter', async () => {
  await using simulator = await startSimulator();
  const { path, task, endOf, call, session, vdi } = await snapshotToExport(simulator);
  simulator.fault('export-cut', { after: 5000, taskSucceeds: true });
  const { body } = await send(simulator, path());
  expect(body.length).toBe(5000);
  expect(await endOf(task)).toMatchObject({ status: 'success' });

  const other = await call<string>('task.create', 'again', '');
  simulator.fault('export-cut', { after: 6000 });
  const query = new URLSearchParams({ session_id: session, task_id: other, vdi, format: 'raw' });
  expect((await send(simulator, `/export_raw_vdi?${query}`)).body.length).toBe(6000);
  expect(await endOf(other)).toMatchObject({ status: 'failure' });
});

test('a stalled export ends when its task is cancelled', async () => {
  await using simulator = await startSimulator();
  const { path, task, endOf, call } = await snapshotToExport(simulator);
  simulator.fault('stall', { after: 5000 });
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request(new URL(path(), simulator.url), { ca: simulator.certificate, agent: false }, resolve)
    .on('error', reject)
    .end();
  let received = Buffer.alloc(0);
  for await (const chunk of await promise) {
    received = Buffer.concat([received, chunk as Buffer]);
    if (received.length === 5000) await call('task.cancel', task);
  }
  expect(received.subarray(5000).toString()).toMatch(/^HTTP\/1\.1 500/);
  expect(await endOf(task)).toMatchObject({ status: 'cancelled' });
});

test('an upload answers before it reads, and refuses encodings', async () => {
  await using simulator = await startSimulator();
  const { session, call, endOf } = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  const [disk] = vm.disks;
  const put = async (headers: Record<string, string>, body: Uint8Array) => {
    const task = await call<string>('task.create', 'import', '');
    const query = new URLSearchParams({ session_id: session, task_id: task, vdi: disk!.vdi, format: 'raw' });
    const answer = await send(simulator, `/import_raw_vdi?${query}`, { method: 'PUT', headers, body });
    return { ...answer, task: await endOf(task) };
  };
  const content = randomBytes(4 * MIB);
  const length = { 'content-length': String(content.length) };
  expect(await put(length, content)).toMatchObject({
    status: 200,
    task: { status: 'success', result: `<value>${disk!.vdi}</value>` },
  });
  expect(await simulator.hashDisk(disk!.uuid)).toBe(createHash('sha256').update(content).digest('hex'));
  expect(await put({ 'transfer-encoding': 'chunked' }, content.subarray(0, 10))).toMatchObject({
    status: 404,
    task: { status: 'failure', error_info: ['INTERNAL_ERROR', 'Cannot handle encoding: chunked'] },
  });
});

test('a request is sent elsewhere on demand', async () => {
  await using simulator = await startSimulator();
  const { path, task, call } = await snapshotToExport(simulator);
  simulator.fault('redirect', { path: '/export_raw_vdi', address: '192.0.2.77' });
  const { status, headers } = await send(simulator, path());
  expect(status).toBe(302);
  expect(headers['location']).toBe(`https://192.0.2.77${path()}`);
  expect(await call('task.get_status', task)).toBe('pending');
});

test('an upload fails on demand after what it has read, and stalls until its task is cancelled', async () => {
  await using simulator = await startSimulator();
  const { session, call, endOf } = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  const vdi = vm.disks[0]!.vdi;
  const put = async () => {
    const task = await call<string>('task.create', 'import', '');
    const query = new URLSearchParams({ session_id: session, task_id: task, vdi, format: 'raw' });
    const headers = { 'content-length': String(4 * MIB) };
    const body = Buffer.alloc(4 * MIB, 1);
    const answer = send(simulator, `/import_raw_vdi?${query}`, { method: 'PUT', headers, body });
    return { task, answer };
  };
  simulator.fault('import-error', { after: 100_000 });
  const failing = await put();
  expect((await failing.answer).body.toString()).toMatch(/^HTTP\/1\.1 500/);
  expect(await endOf(failing.task)).toMatchObject({
    status: 'failure',
    error_info: ['VDI_IO_ERROR', expect.anything()],
  });

  simulator.fault('stall', { after: 100_000 });
  await untilHeld(simulator, vdi, false);
  const stalled = await put();
  await untilHeld(simulator, vdi, true);
  await call('task.cancel', stalled.task);
  expect(await endOf(stalled.task)).toMatchObject({ status: 'cancelled' });
  expect((await stalled.answer).body.toString()).toMatch(/^HTTP\/1\.1 500/);
});

test('xen-api downloads a disk and uploads it again', async () => {
  await using simulator = await startSimulator();
  const { vdi } = await snapshotToExport(simulator);
  await using client = await connect(simulator);
  const { xapi } = client;
  await xapi.objectsFetched;
  const query = { vdi, format: 'raw' };
  const response = await xapi.getResource('/export_raw_vdi', { query, task: true });
  const content = await buffer(response.body);
  expect(createHash('sha256').update(content).digest('hex')).toBe(await simulator.hashDisk(vdi));
  const copy = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  const target = { vdi: copy.disks[0]!.vdi, format: 'raw' };
  await xapi.putResource(content, '/import_raw_vdi', { query: target, task: true });
  expect(await simulator.hashDisk(copy.disks[0]!.vdi)).toBe(await simulator.hashDisk(vdi));
});
