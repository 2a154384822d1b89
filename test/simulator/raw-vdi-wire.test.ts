import { describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { encodeVhd } from '../../src/simulator/vhd-encoding.ts';
import { patterned } from '../support/patterned.ts';
import { collect } from '../support/sources.ts';
import { type Answer, logIn, type RpcSession, send, type TaskRecord } from './client.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;

/** A transfer with a task of its own, as clients make them. */
async function transfer(
  simulator: Simulator,
  rpc: RpcSession,
  path: string,
  query: Readonly<Record<string, string>>,
  options: Parameters<typeof send>[2] = {},
): Promise<{ readonly answer: Answer | Error; readonly task: TaskRecord }> {
  const task_id = await rpc.call<string>('task.create', 'transfer', '');
  const search = new URLSearchParams({ session_id: rpc.session, task_id, ...query });
  const length = options.body?.length;
  const headers = { ...(length !== undefined && { 'content-length': String(length) }), ...options.headers };
  const answer = await send(simulator, `${path}?${search}`, { ...options, headers }).catch((error: Error) => error);
  return { answer, task: await rpc.endOf(task_id) };
}

function bodyOf(answer: Answer | Error): Buffer {
  if (answer instanceof Error) throw answer;
  expect(answer.status).toBe(200);
  return answer.body;
}

async function halted(simulator: Simulator, size = 2 * BLOCK) {
  const vm = await simulator.createVm({ powerState: 'Halted', disks: [{ size }] });
  const [disk] = vm.disks;
  if (disk === undefined) throw new Error('a machine without a disk');
  await simulator.writeDisk(disk.vdi, undefined, BLOCK, patterned(4096));
  return disk;
}

describe('over the wire', () => {
  test('an export has no length, its success is in the task, and the control domain lets go a moment later', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const disk = await halted(simulator);
    const { answer, task } = await transfer(simulator, rpc, '/export_raw_vdi', { vdi: disk.vdi, format: 'vhd' });
    expect(bodyOf(answer).byteLength).toBe(2048 + 512 + BLOCK + 512 + 512);
    if (answer instanceof Error) throw answer;
    expect(answer.headers['content-length']).toBeUndefined();
    expect(answer.headers['transfer-encoding']).toBeUndefined();
    expect(answer.headers['task-id']).toMatch(/^OpaqueRef:/);
    expect(task.status).toBe('success');
    const { world } = simulator;
    while (world.getObject('VDI', disk.vdi).VBDs.length > 1) await world.nextChange(world.generation);
    expect(world.getObject('VDI', disk.vdi).VBDs).toEqual([disk.vbd]);
  });

  test('a failure in the middle is a second answer inside the body', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const disk = await halted(simulator);
    simulator.fault('export-500', { after: 3000 });
    const { answer, task } = await transfer(simulator, rpc, '/export_raw_vdi', { vdi: disk.vdi });
    const body = bodyOf(answer);
    expect(body.subarray(3000).toString()).toMatch(/^HTTP\/1\.1 500 Internal Error\r\n/);
    expect(task).toMatchObject({ status: 'failure', error_info: ['VDI_IO_ERROR', 'Device I/O errors'] });
  });

  test('a disk in use by a running machine fails after the 200', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const vm = await simulator.createVm({ disks: [{ size: BLOCK }] });
    const { answer, task } = await transfer(simulator, rpc, '/export_raw_vdi', { vdi: vm.disks[0]?.vdi ?? '' });
    expect(bodyOf(answer).toString()).toMatch(/^HTTP\/1\.1 500/);
    expect(task.error_info[0]).toBe('SR_BACKEND_FAILURE_46');
  });

  test('an import reports its disk, and what was written is what was sent', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const [source, target] = [await halted(simulator), await halted(simulator)];
    const exported = await transfer(simulator, rpc, '/export_raw_vdi', { vdi: source.vdi, format: 'vhd' });
    await simulator.writeDisk(source.vdi, undefined, BLOCK, patterned(99, 2));
    const body = bodyOf(exported.answer);
    const { answer, task } = await transfer(
      simulator,
      rpc,
      '/import_raw_vdi',
      { vdi: target.vdi, format: 'vhd' },
      { method: 'PUT', body },
    );
    expect(bodyOf(answer).byteLength).toBe(0);
    expect(task).toMatchObject({ status: 'success', result: `<value>${target.vdi}</value>` });
    await simulator.writeDisk(target.vdi, undefined, BLOCK, patterned(99, 2));
    expect(await simulator.hashDisk(target.vdi)).toBe(await simulator.hashDisk(source.vdi));
  });

  test('an import that fails long before the end of the body still answers', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const disk = await halted(simulator);
    const readInto = async (target: Uint8Array) => void target.fill(1);
    const body = await collect(encodeVhd({ size: 8 * BLOCK, blocks: [0, 1, 2, 3, 4, 5, 6, 7], readInto }).chunks);
    body[2] = 0; // no cookie any more
    const put = { method: 'PUT', body };
    const { answer, task } = await transfer(simulator, rpc, '/import_raw_vdi', { vdi: disk.vdi, format: 'vhd' }, put);
    expect(task).toMatchObject({ status: 'failure', error_info: ['VDI_IO_ERROR', 'Device I/O errors'] });
    expect(bodyOf(answer).toString()).toMatch(/^HTTP\/1\.1 500/);
  });

  test('a body sent in HTTP chunks is refused before it is read', async () => {
    await using simulator = await startSimulator();
    const rpc = await logIn(simulator);
    const disk = await halted(simulator);
    const headers = { 'transfer-encoding': 'chunked' };
    const { answer, task } = await transfer(
      simulator,
      rpc,
      '/import_raw_vdi',
      { vdi: disk.vdi },
      { method: 'PUT', headers },
    );
    expect(answer).toMatchObject({ status: 404 });
    expect(task).toMatchObject({
      status: 'failure',
      error_info: ['INTERNAL_ERROR', 'Cannot handle encoding: chunked'],
    });
  });
});
