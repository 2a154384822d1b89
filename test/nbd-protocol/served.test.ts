import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, formatNbdUri, type NbdServerOptions, serveNbd } from '../../src/nbd-protocol/index.ts';
import { makePki, type Pki } from '../support/certificates.ts';
import { hasTool } from '../support/has-tool.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);
let dir: TempDir;
let pki: Pki;
let bytes: Uint8Array;

beforeAll(async () => {
  dir = await makeTempDir();
  await mkdir(dir.file('pki'));
  pki = await makePki(dir.file('pki'));
  bytes = new Uint8Array(8 * MIB);
  bytes.set(patterned(MIB + 4096, 4), MIB);
  bytes.set(patterned(512, 5), 8 * MIB - 512);
  await writeFile(dir.file('raw.img'), bytes);
}, 60_000);
afterAll(() => dir[Symbol.asyncDispose]());

const served = (options: NbdServerOptions = {}) =>
  serveNbd({ disk: memoryDisk(bytes) }, { readOnly: true, ...options });
const out = async (program: string, ...args: string[]) => (await run(program, args)).stdout;

async function sameFile(path: string): Promise<void> {
  expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
}

describe.runIf(hasTool('nbdinfo') && hasTool('nbdcopy'))('libnbd reads our server', () => {
  test('what nbdinfo sees', async () => {
    await using server = await served();
    const info = JSON.parse(await out('nbdinfo', '--json', server.uri)) as { protocol: string; exports: unknown[] };
    expect(info).toMatchObject({ protocol: 'newstyle-fixed', structured: true });
    expect(info.exports[0]).toMatchObject({
      'export-name': 'disk',
      'export-size': 8 * MIB,
      is_read_only: true,
      can_multi_conn: true,
      can_df: true,
      contexts: ['base:allocation'],
      block_size_minimum: 1,
      block_size_maximum: 32 * MIB,
    });
    expect(await out('nbdinfo', '--list', server.uri)).toContain('export="disk"');
    const map = JSON.parse(await out('nbdinfo', '--map', '--json', server.uri)) as { offset: number; type: number }[];
    expect(map.map(({ offset, type }) => [offset, type])).toEqual([
      [0, 3],
      [MIB, 0],
      [2 * MIB + 65536, 3],
      [8 * MIB - 65536, 0],
    ]);
  });

  test('nbdcopy, many ways', async () => {
    await using server = await served();
    for (const [index, args] of [
      ['-C', '4', '-T', '2', '-R', '16', '--request-size=1048576'],
      ['--no-extents'],
      ['--synchronous'],
    ].entries()) {
      await run('nbdcopy', [...args, server.uri, dir.file(`copy${index}`)]);
      await sameFile(dir.file(`copy${index}`));
    }
  });

  test('over a Unix socket, with a name that needs escaping', async () => {
    const socketPath = dir.file('a socket');
    const name = '/1fb5?session_id=OpaqueRef:x/ü';
    await using server = await serveNbd({ [name]: memoryDisk(bytes) }, { socketPath });
    await run('nbdcopy', [server.uri, dir.file('unix-copy')]);
    await sameFile(dir.file('unix-copy'));
    await using disk = await connectNbd(server.uri);
    expect(disk.size).toBe(8 * MIB);
  });

  test('over TLS, and not without', async () => {
    await using server = await served({ tls: pki.server });
    const uri = formatNbdUri({ host: 'localhost', port: server.port }, 'disk', true);
    await run('nbdcopy', [`${uri}?tls-certificates=${pki.directory}`, dir.file('tls-copy')]);
    await sameFile(dir.file('tls-copy'));
    await expect(run('nbdinfo', ['--size', `nbd://localhost:${server.port}/disk`])).rejects.toThrow(/TLS/);
  });

  test('both ways where TLS is allowed; with a client certificate where it is demanded', async () => {
    await using either = await served({ tls: { ...pki.server, mode: 'allow' } });
    const plain = formatNbdUri({ host: 'localhost', port: either.port }, 'disk', false);
    const secure = formatNbdUri({ host: 'localhost', port: either.port }, 'disk', true);
    expect((await out('nbdinfo', '--size', plain)).trim()).toBe(`${8 * MIB}`);
    expect((await out('nbdinfo', '--size', `${secure}?tls-certificates=${pki.directory}`)).trim()).toBe(`${8 * MIB}`);
    await using mutual = await served({ tls: { ...pki.server, clientCa: pki.ca } });
    const tls = { ca: pki.ca };
    await expect(connectNbd(mutual.uri, { tls }).then((disk) => disk.close())).rejects.toMatchObject({
      retryable: true,
    });
    await using disk = await connectNbd(mutual.uri, { tls: { ...tls, clientCertificate: pki.client } });
    expect(disk.size).toBe(8 * MIB);
  });

  test('IPv6', async () => {
    await using server = await served({ host: '::1' });
    expect(server.uri).toMatch(/^nbd:\/\/\[::1\]:\d+\/disk$/);
    expect((await out('nbdinfo', '--size', server.uri)).trim()).toBe(`${8 * MIB}`);
    await using disk = await connectNbd(server.uri);
    expect(disk.size).toBe(8 * MIB);
  });

  test('libnbd writes', async () => {
    const target = new Uint8Array(8 * MIB).fill(0xee);
    await using server = await serveNbd({ disk: memoryDisk(target) });
    await run('nbdcopy', ['--flush', dir.file('raw.img'), server.uri]);
    expect(Buffer.compare(target, bytes)).toBe(0);
  });

  test('the xenserver personality is understood by libnbd, through its fallback', async () => {
    await using server = await served({ personality: 'xenserver' });
    const info = await out('nbdinfo', '--json', `${server.uri}`);
    expect(JSON.parse(info)).toMatchObject({ structured: false });
    await run('nbdcopy', ['--request-size=1048576', server.uri, dir.file('xen-copy')]);
    await sameFile(dir.file('xen-copy'));
  });
});

describe.runIf(hasTool('qemu-img') && hasTool('qemu-io'))('qemu reads our server', () => {
  test('compare, map, convert', async () => {
    await using server = await served();
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', dir.file('raw.img'), dir.file('image.qcow2')]);
    expect(await out('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', server.uri, dir.file('image.qcow2'))).toContain(
      'identical',
    );
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', server.uri, dir.file('converted')]);
    await sameFile(dir.file('converted'));
    const map = JSON.parse(await out('qemu-img', 'map', '-f', 'raw', '--output=json', server.uri)) as unknown[];
    expect(map).toHaveLength(4);
  });

  test('qemu-io reads, writes, and is refused', async () => {
    const target = new Uint8Array(MIB);
    await using writable = await serveNbd({ disk: memoryDisk(target) });
    await run('qemu-io', [
      '-f',
      'raw',
      '-c',
      'write -P 0x11 4096 8192',
      '-c',
      'write -z 6144 512',
      '-c',
      'flush',
      writable.uri,
    ]);
    const expected = new Uint8Array(MIB).fill(0x11, 4096, 12288).fill(0, 6144, 6656);
    expect(Buffer.compare(target, expected)).toBe(0);
    await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0x11 4096 512', writable.uri]);
    await using frozen = await served();
    await expect(run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', frozen.uri])).rejects.toThrow();
  });

  test('over TLS', async () => {
    await using server = await served({ tls: pki.server });
    const creds = `tls-creds-x509,id=tls0,endpoint=client,dir=${pki.directory}`;
    const image = `driver=nbd,host=localhost,port=${server.port},export=disk,tls-creds=tls0`;
    const copy = dir.file('qemu-tls');
    await run('qemu-img', ['convert', '--object', creds, '--image-opts', image, '-O', 'raw', copy]);
    await sameFile(copy);
  });
});

test('the seventeenth connection is closed at once, and a slot is free again only after a while', async () => {
  const clock = manualClock();
  await using server = await served({ personality: 'xenserver', slotReleaseDelayMs: 7777, clock });
  const disks = await Promise.all(Array.from({ length: 16 }, () => connectNbd(server.uri, { profile: 'xenserver' })));
  const refused = () => connectNbd(server.uri, { profile: 'xenserver' }).catch((error: { code: string }) => error.code);
  expect(await refused()).toBe('NBD_NO_GREETING');
  await disks[0]!.close();
  expect(await refused()).toBe('NBD_NO_GREETING');
  while (!clock.sleeps.includes(7777)) await new Promise((resolve) => setImmediate(resolve));
  expect(server.connectionCount).toBe(16);
  await clock.advance(7777);
  while (server.connectionCount > 15) await new Promise((resolve) => setImmediate(resolve));
  await (await connectNbd(server.uri, { profile: 'xenserver' })).close();
  await Promise.all(disks.map((disk) => disk.close()));
});

test('a client that sends nothing is dropped in time', async () => {
  await using server = await served({ handshakeMs: 20 });
  const socket = connect(server.port, server.address);
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
});
