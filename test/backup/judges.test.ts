import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { openRawDisk, writeRaw } from '../../src/disk/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import { EXT4_STATES, e2fsck, ext4Manifest, listFiles, unpackExt4 } from '../support/ext4.ts';
import { hasTool } from '../support/has-tool.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const tools = ['7z', 'vhdiinfo', 'qemu-img', 'e2fsck', 'debugfs'].map((tool) => hasTool(tool)).every(Boolean);

/** What the guest does between two backups: its file system becomes the next state. */
async function guestBecomes(pool: Pool, vm: string, before: string, after: string): Promise<void> {
  await using old = await openRawDisk(before);
  await using now = await openRawDisk(after);
  for (let at = 0; at < now.size; at += 64 * 1024) {
    const [was, is] = [Buffer.alloc(64 * 1024), Buffer.alloc(64 * 1024)];
    await old.readInto(was, at);
    await now.readInto(is, at);
    if (!was.equals(is)) await pool.simulator.writeDisk(vm, '0', at, is);
  }
}

test.runIf(tools)(
  'other people’s tools open what we wrote, and a restored file system is clean and has its files',
  { timeout: 120_000 },
  async () => {
    await using dir = await makeTempDir();
    await using pool = await startPool();
    const { simulator, host, repository, folder } = pool;
    for (const state of EXT4_STATES) await unpackExt4(state, dir.file(`${state}.img`));
    const vm = await simulator.createVm({ disks: [{ size: 64 * MIB, rawImage: dir.file('first.img') }] });
    const disk = vm.disks[0]!.uuid;

    const points = [];
    for (const [index, state] of EXT4_STATES.entries()) {
      if (index > 0)
        await guestBecomes(pool, vm.uuid, dir.file(`${EXT4_STATES[index - 1]}.img`), dir.file(`${state}.img`));
      const { point, manifest } = await backupVm(host, repository, { vm: vm.uuid });
      expect(manifest.type).toBe(index === 0 ? 'full' : 'incr');
      points.push(point);
    }

    const layers = join(folder, 'vms', vm.uuid, 'disks', disk);
    const names = (await readdir(layers)).filter((name) => name.endsWith('.vhd'));
    const files = names.sort().map((name) => join(layers, name));
    expect(files).toHaveLength(3);
    for (const file of files) {
      await run('7z', ['t', file]); // follows the parents by name and compares their uuids
      const { stdout } = await run('vhdiinfo', [file]);
      expect(stdout).toMatch(/Disk type\s*:\s*(Dynamic|Differential)/);
    }
    await run('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', files[0]!, dir.file('base.img')]);
    await run('cmp', [dir.file('base.img'), dir.file('first.img')]);
    // the type is named, or 7z goes on into the file system and extracts its files
    await run('7z', ['e', '-tVHD', '-so', files[2]!], { encoding: 'buffer', maxBuffer: 128 * MIB }).then(
      async ({ stdout }) => {
        await using third = await openRawDisk(dir.file('third.img'));
        const expected = Buffer.alloc(third.size);
        await third.readInto(expected, 0);
        expect(stdout.equals(expected)).toBe(true);
      },
    );

    for (const index of [2, 1, 0]) {
      const state = EXT4_STATES[index]!;
      const restored = await restoreVm(host, repository, { point: points[index]! });
      const made = restored.disks[disk]!;
      expect(await simulator.hashDisk(made)).toBe((await ext4Manifest(state)).sha256);
      await using merged = await repository.openDisk(points[index]!, disk);
      const image = dir.file(`restored-${state}.img`);
      await writeRaw(merged, image);
      await e2fsck(image);
      expect(await listFiles(image)).toEqual((await ext4Manifest(state)).files);
    }
  },
);
