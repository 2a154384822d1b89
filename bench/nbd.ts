/**
 * How fast a disk is read over NBD: our client beside nbdcopy, from nbdkit and from our own server, plain and TLS.
 * Run with `node bench/nbd.ts [MiB]`; needs nbdkit, nbdcopy and openssl.
 */
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { type Disk, memoryDisk, readBlocks } from '../src/disk/index.ts';
import { connectNbd, type NbdOptions, serveNbd } from '../src/nbd-protocol/index.ts';
import { nbdkit } from '../test/nbd-protocol/real-servers.ts';
import { makePki } from '../test/support/certificates.ts';
import { makeTempDir } from '../test/support/temp-dir.ts';

const MIB = 1024 * 1024;
const size = Number(process.argv[2] ?? 1024);
const run = promisify(execFile);

async function timed(label: string, work: () => Promise<unknown>): Promise<void> {
  const cpu = process.cpuUsage();
  const started = performance.now();
  await work();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const own = ((user + system) / 1e6).toFixed(2);
  console.log(`${label.padEnd(52)} ${(size / seconds).toFixed(0).padStart(6)} MiB/s  ${own} s CPU here`);
}

async function readAll(uri: string, options: NbdOptions): Promise<void> {
  const disk = await connectNbd(uri, options);
  let read = 0;
  for await (const { data } of readBlocks(disk, { zeroes: 'emit' })) read += data.byteLength;
  await disk.close();
  if (read !== size * MIB) throw new Error(`read ${read} bytes, expected ${size * MIB}`);
}

const nbdcopy = (uri: string) => run('nbdcopy', ['--no-extents', uri, 'null:']);

async function main(): Promise<void> {
  await using dir = await makeTempDir();
  await mkdir(dir.file('pki'));
  const pki = await makePki(dir.file('pki'));
  const tls = { ca: pki.ca };
  {
    await using server = await nbdkit(['pattern', `${size}M`]);
    await timed('nbdkit, Unix socket: ours', () => readAll(server.uri, {}));
    await timed('nbdkit, Unix socket: ours, 1 MiB requests', () => readAll(server.uri, { requestSize: MIB }));
    await timed('nbdkit, Unix socket: nbdcopy', () => nbdcopy(server.uri));
  }
  {
    await using server = await nbdkit(['pattern', `${size}M`], { tcp: true });
    await timed('nbdkit, TCP: ours', () => readAll(server.uri, {}));
    await timed('nbdkit, TCP: ours, 4 connections', () => readAll(server.uri, { connections: 4 }));
    await timed('nbdkit, TCP: nbdcopy', () => nbdcopy(server.uri));
  }
  {
    const args = ['--tls=require', `--tls-certificates=${pki.directory}`, 'pattern', `${size}M`];
    await using server = await nbdkit(args, { tcp: true });
    const uri = `nbds://localhost:${server.port}/?tls-certificates=${pki.directory}`;
    await timed('nbdkit, TLS: ours', () => readAll(server.uri, { tls }));
    await timed('nbdkit, TLS: nbdcopy', () => nbdcopy(uri));
  }
  const disk: Disk = { ...memoryDisk(new Uint8Array(4096)), size: size * MIB, readInto: async () => {} };
  const flat: Disk = {
    ...disk,
    async *extents({ offset = 0, length = size * MIB - offset } = {}) {
      yield { offset, length, kind: 'data' };
    },
  };
  {
    await using server = await serveNbd({ disk: flat });
    await timed('our server, TCP: nbdcopy', () => nbdcopy(server.uri));
    await timed('our server and client in one process, TCP', () => readAll(server.uri, {}));
  }
  {
    const server = await serveNbd({ disk: flat }, { personality: 'xenserver', tls: pki.server });
    const options: NbdOptions = { profile: 'xenserver', tls };
    await timed('as XenServer, TLS, one process, 2 connections', () => readAll(server.uri, options));
    await server.close();
  }
}

await main();
