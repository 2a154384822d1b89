import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { connectNbd, serveNbd } from '../../src/nbd-protocol/index.ts';
import { type SynthesizedXva, synthesizeXva } from '../../src/restore/index.ts';
import { checkXva, openXva, xvaVm } from '../../src/xva/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { type BackedUp, MIB, startBackedUp } from './support.ts';

const run = promisify(execFile);

async function save(xva: SynthesizedXva, path: string): Promise<void> {
  await pipeline(Readable.from(xva.chunks), createWriteStream(path));
  await xva.close();
}

async function increment({ host, repository, simulator, vm }: BackedUp, strategy: 'image' | 'changed-blocks') {
  await simulator.writeDisk(vm.uuid, '1', 9 * MIB, randomBytes(3 * MIB));
  const { point } = await backupVm(host, repository, { vm: vm.uuid, strategy });
  const hashes = new Map<string, string>();
  for (const { uuid, device } of vm.disks) hashes.set(device, await simulator.hashDisk(uuid));
  return { point, hashes };
}

describe.each(['changed-blocks', 'image'] as const)('of the strategy %s', (strategy) => {
  test('an increment is one archive that checks, opens, and imports', async () => {
    await using pool = await startBackedUp({ backup: { strategy } });
    await using dir = await makeTempDir();
    const { point, hashes } = await increment(pool, strategy);
    const path = dir.file('web.xva');
    const xva = await synthesizeXva(pool.repository, point, { name: 'handed over' });
    expect(xva.length).toBe(xva.plainLength);
    await save(xva, path);
    expect(await checkXva(path)).toMatchObject({ ok: true, length: xva.length, chunks: expect.any(Number) as number });
    await using image = await openXva(path);
    for (const disk of image.disks) expect(await hashDisk(disk)).toBe(hashes.get(disk.device));
    const vm = xvaVm(image.metadata);
    expect(vm).toMatchObject({ name: 'handed over', isTemplate: false, powerState: 'Halted', uuid: pool.vm.uuid });
    expect(vm.nics).toHaveLength(2);
    expect(JSON.stringify(image.metadata)).not.toContain('xen-backup-sdk:');

    const again = await synthesizeXva(pool.repository, point);
    await using _ = again;
    const [ref] = await pool.host.importVm(again);
    const disks = await pool.host.listDisks(ref!);
    expect(disks).toHaveLength(2);
    for (const { vbd, vdi } of disks) {
      expect(await pool.simulator.hashDisk(vdi.uuid)).toBe(hashes.get(vbd.userdevice));
    }
  });
});

test.runIf(hasTool('tar'))('tar lists and unpacks it, compressed as well', async () => {
  await using pool = await startBackedUp({ backup: { strategy: 'image' } });
  await using dir = await makeTempDir();
  await save(await synthesizeXva(pool.repository, pool.first.point, { compression: 'zstd' }), dir.file('web.xva.zst'));
  const { stdout } = await run('tar', ['--zstd', '-tf', dir.file('web.xva.zst')]);
  expect(stdout.split('\n')[0]).toBe('ova.xml');
  expect(stdout.split('\n').filter((name) => name.endsWith('/00000000'))).toHaveLength(2);
});

test('a disk that was excluded is left out, with its drive', async () => {
  await using pool = await startBackedUp({ backup: { exclude: ['1'] } });
  await using xva = await synthesizeXva(pool.repository, pool.first.point);
  expect(
    xvaVm(xva.metadata)
      .drives.filter(({ type }) => type === 'Disk')
      .map(({ device }) => device),
  ).toEqual(['0']);
});

test('of a compressed image it says what to do, and leaves nothing open', async () => {
  await using pool = await startBackedUp({ backup: { strategy: 'image', compression: 'zstd' } });
  await expect(synthesizeXva(pool.repository, pool.first.point)).rejects.toMatchObject({ code: 'XVA_COMPRESSED' });
});

test('one disk of an archive is served alone', async () => {
  await using pool = await startBackedUp({ backup: { strategy: 'image' } });
  await using image = await openXva(await pool.repository.openFile(pool.first.point, 'image'));
  const disk = image.disks.find(({ device }) => device === '1')!;
  await using server = await serveNbd({ disk });
  await using served = await connectNbd(server.uri);
  expect(await hashDisk(served)).toBe(await pool.simulator.hashDisk(pool.vm.disks[1]!.uuid));
});
