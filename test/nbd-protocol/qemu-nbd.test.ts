import { execFileSync } from 'node:child_process';
import { open, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hashDisk, openRawDisk } from '../../src/disk/index.ts';
import { connectNbd, listNbdExports, type NbdDisk, NbdError } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { nbdServer, qemuNbd } from './real-servers.ts';

const MIB = 1024 * 1024;
const EXPORT = { exportName: 'exp1' };
let dir: TempDir;
let raw: string;

beforeAll(async () => {
  dir = await makeTempDir();
  raw = dir.file('raw.img');
  const file = await open(raw, 'w');
  await file.write(patterned(MIB, 1), 0, MIB, MIB);
  await file.write(patterned(MIB, 2), 0, MIB, 5 * MIB);
  await file.truncate(8 * MIB);
  await file.close();
});
afterAll(() => dir[Symbol.asyncDispose]());

async function failureOf(work: Promise<unknown>): Promise<NbdError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(NbdError);
  return error as NbdError;
}

async function sameAs(disk: NbdDisk, path: string): Promise<void> {
  await using file = await openRawDisk(path);
  expect(await hashDisk(disk)).toBe(await hashDisk(file));
  const bytes = Buffer.alloc(disk.size);
  await disk.readInto(bytes, 0);
  const expected = Buffer.alloc(file.size);
  await file.readInto(expected, 0);
  expect(Buffer.compare(bytes, expected)).toBe(0);
}

describe.runIf(hasTool('qemu-nbd') && hasTool('qemu-img'))('qemu-nbd', () => {
  test('row 53: holes and data in one answer; the map is that of qemu-img', async () => {
    await using server = await qemuNbd(['-f', 'raw', '-r', '-x', 'exp1', '-e', '4', raw], EXPORT);
    await using disk = await connectNbd(server.uri, { requestSize: 4 * MIB, connections: 4 });
    await sameAs(disk, raw);
    const map = JSON.parse(String(execFileSync('qemu-img', ['map', '-f', 'raw', '--output=json', server.uri]))) as {
      start: number;
      length: number;
      zero: boolean;
    }[];
    const expected = map.map(({ start, length, zero }) => ({ offset: start, length, kind: zero ? 'zero' : 'data' }));
    expect(await toArray(disk.extents())).toEqual(expected);
  });

  test('row 54: a chain, with contexts beside ours', async () => {
    const [base, top] = [dir.file('base.qcow2'), dir.file('top.qcow2')];
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, base]);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
    execFileSync('qemu-img', ['bitmap', '--add', '-f', 'qcow2', top, 'b0']);
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x11 0 64k', top]);
    await using server = await qemuNbd(['-f', 'qcow2', '-r', '-x', 'exp1', '-B', 'b0', '-A', '-e', '4', top], EXPORT);
    await using disk = await connectNbd(server.uri);
    const start = new Uint8Array(65536);
    await disk.readInto(start, 0);
    expect(Buffer.compare(start, new Uint8Array(65536).fill(0x11))).toBe(0);
    expect((await toArray(disk.extents()))[0]).toMatchObject({ offset: 0, kind: 'data' });
  });

  test('row 55: an odd size is rounded up by the server, and its tail is zero', async () => {
    const odd = dir.file('odd.img');
    await writeFile(odd, patterned(1_000_001));
    await using server = await qemuNbd(['-f', 'raw', '-r', '-x', 'exp1', odd], EXPORT);
    await using disk = await connectNbd(server.uri);
    expect(disk.size).toBe(1_000_448);
    const tail = new Uint8Array(448);
    await disk.readInto(tail, 1_000_000);
    expect(tail.subarray(1)).toEqual(new Uint8Array(447));
  });

  test('row 56: a bad sector that kills the connection becomes an EIO', async () => {
    const inject = 'file.inject-error.0.event=none,file.inject-error.0.iotype=read';
    const bad = 'file.inject-error.0.sector=2448,file.inject-error.0.errno=5';
    const image = `driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=${raw},${inject},${bad}`;
    await using server = await qemuNbd(['-r', '-x', 'exp1', '--image-opts', image], EXPORT);
    await using disk = await connectNbd(server.uri, { reconnect: { delayMs: 1 } });
    const error = await failureOf(disk.readInto(new Uint8Array(MIB), MIB));
    expect(error).toMatchObject({ code: 'NBD_REQUEST_FAILED', errno: 5, facts: { offset: 2448 * 512, length: 512 } });
    const rest = new Uint8Array(MIB);
    await disk.readInto(rest, 5 * MIB);
    expect(Buffer.compare(rest, patterned(MIB, 2))).toBe(0);
  });

  test('row 57: a server for one client leaves the second without a greeting', async () => {
    await using server = await qemuNbd(['-f', 'raw', '-r', raw]);
    await using disk = await connectNbd(server.uri, { connections: 3 });
    const clock = manualClock();
    const second = failureOf(connectNbd(server.uri, { clock }));
    while (clock.sleeps.at(-1) !== 30_000) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(30_000);
    expect(await second).toMatchObject({ code: 'NBD_TIMEOUT', stage: 'greeting' });
    expect(disk.size).toBe(8 * MIB);
  });

  test('row 58: ended with requests in flight', async () => {
    const image = 'driver=raw,file.driver=null-co,file.size=1M,file.latency-ns=1000000000';
    await using server = await qemuNbd(['--image-opts', image]);
    await using disk = await connectNbd(server.uri, { reconnect: { tries: 0 } });
    const reading = failureOf(disk.readInto(new Uint8Array(MIB), 0));
    server.kill('SIGTERM');
    expect(await reading).toMatchObject({ retryable: true });
  });

  test('writing', async () => {
    const target = dir.file('target.img');
    await writeFile(target, new Uint8Array(2 * MIB));
    await using server = await qemuNbd(['-f', 'raw', '-x', 'exp1', target], EXPORT);
    {
      await using disk = await connectNbd(server.uri);
      await disk.write(patterned(MIB), MIB);
      await disk.writeZeroes(MIB + 65536, 65536);
      await disk.flush();
    }
    await using file = await openRawDisk(target);
    const bytes = new Uint8Array(MIB);
    await file.readInto(bytes, MIB);
    expect(Buffer.compare(bytes, patterned(MIB).fill(0, 65536, 131072))).toBe(0);
  });
});

describe.runIf(hasTool('nbd-server'))('nbd-server', () => {
  const config = (more: string) => (port: number) =>
    `[generic]\nallowlist=true\nlistenaddr=127.0.0.1\nport=${port}\n[disk1]\nexportname=${raw}\nreadonly=true\n${more}`;

  test('row 60: GO without structured replies, and a reset as the answer to ABORT', async () => {
    await using server = await nbdServer(config(''), { exportName: 'disk1' });
    await using disk = await connectNbd(server.uri);
    await sameAs(disk, raw);
    expect((await listNbdExports(server.uri)).map(({ name }) => name)).toEqual(['disk1']);
    expect((await failureOf(connectNbd(server.uri, { exportName: 'no' }))).stage).toBe('export');
  });

  test('row 62: full', async () => {
    await using server = await nbdServer(config('maxconnections=1\n'), { exportName: 'disk1' });
    await using disk = await connectNbd(server.uri);
    const error = await failureOf(connectNbd(server.uri));
    expect(error.code).toBe('NBD_REFUSED');
    expect(error.message).toContain('ERR_POLICY');
    expect(disk.size).toBe(8 * MIB);
  });
});
