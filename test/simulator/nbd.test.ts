import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect as connectTcp } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { connectNbd } from '../../src/nbd-protocol/index.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { logIn } from './client.ts';

const MIB = 1024 * 1024;

interface NbdInfo {
  readonly exportname: string;
  readonly address: string;
  readonly port: number;
  readonly cert: string;
  readonly subject: string;
}

async function snapshotOnNbd(simulator: Simulator) {
  const session = await logIn(simulator);
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }] });
  const content = randomBytes(MIB);
  await simulator.writeDisk(vm.uuid, '0', MIB, content);
  const vdi = await session.call<string>('VDI.snapshot', vm.disks[0]!.vdi);
  await session.call('network.add_purpose', simulator.refs.network, 'nbd');
  const [info] = await session.call<NbdInfo[]>('VDI.get_nbd_info', vdi);
  return { ...session, vm, vdi, content, info: info! };
}

const open = ({ address, port, exportname, cert, subject }: NbdInfo) =>
  connectNbd({
    host: address,
    port,
    exportName: exportname,
    tls: { certificate: cert, servername: subject },
    reconnect: { tries: 0 },
  });

test('a snapshot is read over TLS; the control domain holds it until the connection has ended', async () => {
  await using simulator = await startSimulator();
  const { vdi, content, info, call, session } = await snapshotOnNbd(simulator);
  const { uuid } = simulator.world.getObject('VDI', vdi);
  expect(info).toMatchObject({
    exportname: `/${uuid}?session_id=${session}`,
    cert: simulator.certificate,
    subject: 'simulated-host',
  });
  const disk = await open(info);
  const read = Buffer.alloc(MIB);
  await disk.readInto(read, MIB);
  expect(read.equals(content)).toBe(true);
  expect(simulator.world.getObject('VDI', vdi).VBDs).toHaveLength(1);
  await expect(call('VDI.destroy', vdi)).rejects.toMatchObject({ code: 'VDI_IN_USE', params: [vdi, 'destroy'] });
  await disk.close();
  expect(simulator.world.getObject('VDI', vdi).VBDs).toHaveLength(0);
  await call('VDI.destroy', vdi);
  expect(simulator.log.names()).toContain(`CONNECT /${uuid}`);
  expect(JSON.stringify(simulator.log.entries)).not.toContain(session);
});

test('a session that ended opens nothing, and neither does a disk that a machine writes to', async () => {
  await using simulator = await startSimulator();
  const { vm, info, call } = await snapshotOnNbd(simulator);
  const [live] = await call<NbdInfo[]>('VDI.get_nbd_info', vm.disks[0]!.vdi);
  await expect(open(live!)).rejects.toThrow();
  await call('session.logout');
  await expect(open(info)).rejects.toThrow();
});

test('no purpose: no addresses, and a closed door; both kinds of purpose exclude each other', async () => {
  await using simulator = await startSimulator();
  const { call, vdi, info } = await snapshotOnNbd(simulator);
  const [, other] = [...simulator.world.objects('network')].map(([ref]) => ref);
  await expect(call('network.add_purpose', other, 'insecure_nbd')).rejects.toMatchObject({
    code: 'NETWORK_INCOMPATIBLE_PURPOSES',
    params: ['insecure_nbd', 'nbd'],
  });
  await call('network.add_purpose', simulator.refs.network, 'nbd'); // twice is harmless
  await call('network.remove_purpose', simulator.refs.network, 'nbd');
  expect(await call('VDI.get_nbd_info', vdi)).toEqual([]);
  const socket = connectTcp(info.port, info.address);
  expect(await buffer(socket)).toHaveLength(0);
});

test('faults refuse a connection and cut one within data', async () => {
  await using simulator = await startSimulator();
  const { info } = await snapshotOnNbd(simulator);
  simulator.fault('nbd-refuse', {});
  const socket = connectTcp(info.port, info.address);
  const closed = once(socket, 'close');
  socket.resume();
  await closed;
  simulator.fault('nbd-cut', { after: MIB });
  await using disk = await open(info);
  await disk.readInto(Buffer.alloc(MIB), 0);
  await expect(disk.readInto(Buffer.alloc(MIB), MIB)).rejects.toThrow();
});

test.runIf(hasTool('nbdcopy'))('nbdcopy copies a snapshot and checks the certificate', async () => {
  await using simulator = await startSimulator();
  await using directory = await makeTempDir();
  const { vdi, info } = await snapshotOnNbd(simulator);
  await writeFile(directory.file('ca-cert.pem'), info.cert);
  const certificates = `tls-certificates=${encodeURIComponent(directory.path)}`;
  const uri = `nbds://${info.address}:${info.port}/${encodeURIComponent(info.exportname)}?${certificates}`;
  const copied = directory.file('copy.raw');
  await promisify(execFile)('nbdcopy', ['--connections=1', uri, copied]);
  const bytes = await readFile(copied);
  expect(createHash('sha256').update(bytes).digest('hex')).toBe(await simulator.hashDisk(vdi));
});
