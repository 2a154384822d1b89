import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk, openRawDisk } from '../../src/disk/index.ts';
import { openXva } from '../../src/xva/index.ts';
import { sealed } from '../store/support/seal.ts';
import { hasTool } from '../support/has-tool.ts';
import { startPool } from '../support/pool.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** The commands of docs/format.md, by the program that they begin with. */
async function commandOf(program: string): Promise<string> {
  const text = await readFile(new URL('../../docs/format.md', import.meta.url), 'utf8');
  const found = [...text.matchAll(/^```sh\n(.*?)^```$/gms)]
    .map(([, code]) => code!)
    .filter((code) => code.startsWith(program));
  expect(found, program).toHaveLength(1);
  return found[0]!;
}

test('who follows docs/format.md can tell whether a manifest is as it was written', async () => {
  await using dir = await makeTempDir();
  const path = dir.file('manifest.json');
  const text = sealed({ vm: { name: 'a "seal": "b' }, files: [{ sha256: 'c'.repeat(64) }] }).toString();
  const command = await commandOf('seal=');
  const check = async (written: string) => {
    await writeFile(path, written);
    await run('bash', ['-eu', '-o', 'pipefail', '-c', command], { env: { ...process.env, MANIFEST: path } });
  };
  await check(text);
  await expect(check(text.replace('a ', 'b '))).rejects.toMatchObject({ code: 1 });
});

async function follow(program: string, cwd: string, env: Record<string, string>): Promise<string> {
  await mkdir(cwd);
  await run('bash', ['-eu', '-c', await commandOf(program)], { cwd, env: { ...process.env, ...env } });
  await using disk = await openRawDisk(join(cwd, 'disk.img'));
  return await hashDisk(disk);
}

test.runIf(['qemu-img', '7z', 'tar'].every((name) => hasTool(name)))(
  'who follows docs/format.md gets every disk back, without this library',
  { timeout: 120_000 },
  async () => {
    await using pool = await startPool();
    await using dir = await makeTempDir();
    const vm = await pool.simulator.createVm({ name: 'web', disks: [{ size: 16 * MIB }] });
    const [{ uuid } = { uuid: '' }] = vm.disks;
    await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB + 512, randomBytes(5 * MIB));
    const folder = join(pool.folder, 'vms', vm.uuid);
    const layer = ({ manifest }: Awaited<ReturnType<typeof backupVm>>) => join(folder, manifest.disks[0]!.file!);

    const image = await backupVm(pool.host, pool.repository, { vm: vm.uuid, strategy: 'image' });
    const full = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const atFull = await pool.simulator.hashDisk(uuid);
    await pool.simulator.writeDisk(vm.uuid, '0', 9 * MIB, randomBytes(2 * MIB));
    const incr = await backupVm(pool.host, pool.repository, { vm: vm.uuid });
    const atIncr = await pool.simulator.hashDisk(uuid);
    expect(incr.manifest.type).toBe('incr');

    expect(await follow('qemu-img', dir.file('full'), { FULL: layer(full) })).toBe(atFull);
    const { stdout } = await run('bash', ['-c', await commandOf('split')], { cwd: dir.file('full') });
    expect(stdout).toBe(`${full.manifest.disks[0]!.digest}  -\n`);
    expect(await follow('7z', dir.file('incr'), { LAYER: layer(incr) })).toBe(atIncr);
    const archive = join(folder, image.manifest.files.find(({ role }) => role === 'image')!.name);
    await using opened = await openXva(archive);
    const { id, size, vdiUuid } = opened.disks[0]!;
    expect(vdiUuid).toBe(image.manifest.disks[0]!.snapshotVdiUuid);
    expect(await follow('tar', dir.file('image'), { IMAGE: archive, DISK: id, SIZE: String(size) })).toBe(atFull);
  },
);
