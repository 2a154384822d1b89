import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { type Disk, memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, listNbdExports, serveNbd } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const bytes = patterned(65536);

async function firstBytes(uri: string): Promise<Uint8Array> {
  await using disk = await connectNbd(uri);
  const target = new Uint8Array(512);
  await disk.readInto(target, 0);
  return target;
}

test('five thousand exports are listed, on IPv6, and each can be opened', async () => {
  const disks = new Map<string, Disk>();
  for (let index = 0; index < 5000; index++) disks.set(`disk ${index}`, memoryDisk(bytes));
  await using server = await serveNbd(disks, { host: '::1' });
  const target = { host: '::1', port: server.port };
  expect((await listNbdExports(target)).map(({ name }) => name)).toEqual([...disks.keys()]);
  expect((await listNbdExports(server.uri)).length).toBe(5000);
  await expect(listNbdExports(target, { maxExports: 4999 })).rejects.toMatchObject({ code: 'NBD_PROTOCOL' });
  expect(await firstBytes(server.uriOf('disk 4999'))).toEqual(bytes.subarray(0, 512));
  if (hasTool('nbdinfo')) {
    const { stdout } = await run('nbdinfo', ['--size', server.uriOf('disk 17')]);
    expect(stdout.trim()).toBe('65536');
  }
});

describe('Unix sockets', () => {
  test('with a path', async () => {
    await using dir = await makeTempDir();
    await using server = await serveNbd({ disk: memoryDisk(bytes) }, { socketPath: dir.file('a socket') });
    expect(await listNbdExports(server.uri)).toHaveLength(1);
    expect(await firstBytes(server.uri)).toEqual(bytes.subarray(0, 512));
  });

  test.runIf(process.platform === 'linux')('without one: abstract', async () => {
    const socketPath = `\0xen-backup-sdk/${process.pid}/${Math.random()}`;
    await using server = await serveNbd({ disk: memoryDisk(bytes) }, { socketPath });
    expect(server.uri).toContain('socket=%00xen-backup-sdk%2F');
    expect(await listNbdExports(server.uri)).toHaveLength(1);
    expect(await firstBytes(server.uri)).toEqual(bytes.subarray(0, 512));
  });
});
