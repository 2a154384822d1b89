import { afterEach, beforeEach, expect, test } from 'vitest';
import { BackupError } from '../../src/core/index.ts';
import { connectHost, type Host } from '../../src/host/index.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { patterned } from '../support/patterned.ts';

// The same behaviour as in the other files of this folder, against a host that was written without looking at ours.

const SIZE = 6 * 2 ** 20;

let simulator: Simulator;
let host: Host;

beforeEach(async () => {
  simulator = await startSimulator();
  const { url, username, password, fingerprint256 } = simulator;
  host = await connectHost({ url, username, password, tls: { fingerprint256 }, timeouts: { cleanUpMs: 2000 } });
});
afterEach(async () => {
  await host.close();
  await simulator.close();
});

async function failure(work: Promise<unknown>): Promise<BackupError> {
  const error = await work.then(
    () => expect.fail('expected a rejection'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BackupError);
  expect(JSON.stringify(error) + (error as Error).stack).not.toMatch(/session_id=(?!<redacted>)/);
  return error as BackupError;
}

async function makeDisk(content: Uint8Array): Promise<string> {
  const pool = (await host.listRecords('pool'))[0]!;
  const srs = await host.listRecords('SR');
  const sr = srs.find(({ ref }) => ref === pool.default_SR) ?? srs.find(({ content_type }) => content_type !== 'iso')!;
  const vdi = await host.callAsync<string>('VDI.create', [
    {
      name_label: 'disk',
      name_description: '',
      SR: sr.ref,
      virtual_size: SIZE,
      type: 'user',
      sharable: false,
      read_only: false,
      other_config: {},
      xenstore_data: {},
      sm_config: {},
      tags: [],
    },
  ]);
  await host.importDisk(vdi, one(content));
  return vdi;
}

const one = (bytes: Uint8Array) => ({
  length: bytes.byteLength,
  chunks: (async function* () {
    yield bytes;
  })(),
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk.slice());
  return Buffer.concat(parts);
}

const tasks = () => host.listRecords('task');

test('facts, hosts and networks of the pool', async () => {
  expect(host.facts.productBrand).toBe('XCP-ng');
  expect(host.facts.apiVersion).toMatch(/^2\.\d+$/);
  expect(await host.listVms()).toEqual([]);
  expect((await host.listNetworks()).length).toBeGreaterThan(0);
});

test('a disk goes in and comes out, raw and as VHD, and no task stays', async () => {
  const content = patterned(SIZE);
  const vdi = await makeDisk(content);
  expect((await drain((await host.exportDisk(vdi)).chunks)).equals(content)).toBe(true);
  const vhd = await drain((await host.exportDisk(vdi, { format: 'vhd' })).chunks);
  expect(vhd.toString('latin1', 0, 8)).toBe('conectix');
  expect(await tasks()).toEqual([]);
});

test.each([
  ['export-cut', { after: 100_000 }],
  ['export-cut', { after: 100_000, taskSucceeds: true }],
  ['export-500', { after: 0 }],
  ['export-500', { after: 100_000 }],
  ['export-length', { change: -512 }],
  ['export-length', { change: 512 }],
] as const)('%s %o is an error, and no task stays', async (name, options) => {
  const vdi = await makeDisk(patterned(SIZE));
  simulator.fault(name, options);
  const error = await failure(host.exportDisk(vdi).then(({ chunks }) => drain(chunks)));
  expect(['TRANSFER_CUT', 'TRANSFER_FAILED']).toContain(error.code);
  expect(await tasks()).toEqual([]);
});

test('an import that fails midway tells the host’s code', async () => {
  const vdi = await makeDisk(patterned(SIZE));
  simulator.fault('import-error', { after: 100_000, code: 'VDI_IO_ERROR', params: ['no space'] });
  expect(await failure(host.importDisk(vdi, one(patterned(SIZE, 2))))).toMatchObject({
    code: 'TRANSFER_FAILED',
    xapiCode: 'VDI_IO_ERROR',
  });
  expect(await tasks()).toEqual([]);
});

test('a redirect is followed; a lost session is renewed; a busy disk is retryable', async () => {
  const content = patterned(SIZE);
  const vdi = await makeDisk(content);
  simulator.fault('redirect', { path: '/export_raw_vdi', address: new URL(simulator.url).host });
  expect((await drain((await host.exportDisk(vdi)).chunks)).equals(content)).toBe(true);
  simulator.fault('session-lost', {});
  expect((await host.getRecord('VDI', vdi)).virtual_size).toBe(SIZE);
  simulator.fault('vdi-in-use', { operation: 'destroy' });
  expect(await failure(host.callAsync('VDI.destroy', [vdi]))).toMatchObject({
    xapiCode: 'VDI_IN_USE',
    retryable: true,
  });
});

test('a disk is read over NBD, and can be destroyed as soon as it is closed', async () => {
  const content = patterned(SIZE);
  const vdi = await makeDisk(content);
  await expect(host.openNbd(vdi)).rejects.toMatchObject({ code: 'NBD_UNAVAILABLE' });
  await host.enableNbd((await host.listNetworks())[0]!.uuid);
  {
    await using disk = await host.openNbd(vdi);
    const bytes = new Uint8Array(SIZE);
    await disk.readInto(bytes, 0);
    expect(Buffer.compare(bytes, content)).toBe(0);
  }
  await host.callAsync('VDI.destroy', [vdi]);
});
