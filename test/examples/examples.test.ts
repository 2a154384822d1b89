import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { open, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import type { Plugin } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { compareDisks, hashDisk, memoryDisk, openRawDisk, writeRaw } from '../../src/disk/index.ts';
import { openVhd, writeVhd } from '../../src/vhd/index.ts';
import { checkXva, openXva } from '../../src/xva/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { bundleProgram, type ChildOptions, runChild } from '../support/run-child.ts';
import { makeTempDir, type TempDir, tempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);
const folder = fileURLToPath(new URL('../../examples/', import.meta.url));
/** Runs until it is stopped; nbd-protocol/serve-point.test.ts does that. */
const ELSEWHERE = ['serve-point'];
/** What the others share. */
const SHARED = ['connect', 'open-image', 'usage'];

let bundles: TempDir;
beforeAll(async () => {
  bundles = await makeTempDir();
});
afterAll(() => bundles[Symbol.asyncDispose]());

const used = new Set<string>();

/** The caller's own client is the real package, with what it sends bytes with. */
const realXenApi: Plugin = {
  name: 'real-xen-api',
  setup({ onResolve }) {
    const path = pathToFileURL(fileURLToPath(import.meta.resolve('xen-api'))).href;
    onResolve({ filter: /^xen-api$/ }, ({ importer }) =>
      importer.startsWith(folder) ? { path, external: true } : undefined,
    );
  },
};

async function bundle(name: string): Promise<string> {
  used.add(name);
  const outfile = bundles.file(`${name}.mjs`);
  await bundleProgram(`${folder}${name}.ts`, outfile, [realXenApi]);
  return outfile;
}

async function example(name: string, args: readonly string[], options?: ChildOptions) {
  return runChild(await bundle(name), args, options);
}

function environment({ simulator }: Pool): Record<string, string> {
  const { url, username, password, fingerprint256 } = simulator;
  return { XEN_URL: url, XEN_USER: username, XEN_PASSWORD: password, XEN_FINGERPRINT: fingerprint256 };
}

async function makeVm({ simulator }: Pool, name: string) {
  const vm = await simulator.createVm({ name, disks: [{ size: 8 * MIB }, { size: 6 * MIB }] });
  await simulator.writeDisk(vm.uuid, '0', 512, randomBytes(3 * MIB));
  await simulator.writeDisk(vm.uuid, '1', 4 * MIB, randomBytes(MIB));
  return vm;
}

describe('nightly-backup', () => {
  test.each([
    ['changed-blocks', []],
    ['image', ['--image']],
  ] as const)('%s: a VM that fails does not stop the others, retention and check follow', async (strategy, flags) => {
    await using pool = await startPool();
    const { repository, folder: points } = pool;
    for (const name of ['web', 'db']) await makeVm(pool, name);
    const { code, printed } = await example('nightly-backup', [points, ...flags, 'web', 'gone', 'db'], {
      env: environment(pool),
    });
    expect(printed).toMatch(/^web: 2\S+-full-\S+, \d+ bytes moved$/m);
    expect(printed).toMatch(/gone: .*NOT_FOUND|gone: .*no VM/);
    expect(printed).toMatch(/^retention: 0 points removed, 0 made full, 0 files cleared$/m);
    expect(printed).toMatch(/^2 points: whole$/m);
    expect(code).toBe(1);
    const once = await example('nightly-backup', [`${points}-2`, ...flags, 'web'], { env: environment(pool) });
    expect(once.printed).toMatch(/^1 point: whole$/m);
    const manifests = await Promise.all((await repository.list()).map((id) => repository.get(id)));
    expect(manifests.map((manifest) => manifest.strategy)).toEqual([strategy, strategy]);
    const reports = (await readFile(`${points}-reports.jsonl`, 'utf8')).trim().split('\n');
    expect(reports.map((line) => (JSON.parse(line) as { outcome?: string }).outcome)).toEqual([
      'success',
      undefined,
      'success',
    ]);
  });
});

test('resuming-backup goes on when it is started again after an interrupt', async () => {
  await using pool = await startPool();
  const { simulator, repository, folder: points } = pool;
  const vm = await makeVm(pool, 'web');
  const hash = await simulator.hashDisk(vm.disks[0]!.uuid);
  const disarm = simulator.fault('stall', { after: MIB, path: '/export_raw_vdi' });
  const child = spawn(process.execPath, [await bundle('resuming-backup'), points, 'web'], {
    env: { ...process.env, ...environment(pool) },
    stdio: 'ignore',
  });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  await expect.poll(() => repository.inspectUnfinished(vm.uuid), { timeout: 30_000 }).toBeDefined();
  child.kill('SIGINT');
  expect(await ended).toEqual([1, null]);
  disarm(); // it may not have come to that
  expect(await repository.list()).toEqual([]);
  const { code, printed } = await example('resuming-backup', [points, 'web'], { env: environment(pool) });
  expect(printed).toMatch(/bytes moved, go on$/m);
  expect(code).toBe(0);
  const [point] = await repository.list();
  await using disk = await repository.openDisk(point!, vm.disks[0]!.uuid);
  expect(await hashDisk(disk)).toBe(hash);
});

test('resuming-backup goes on by itself after a failure', async () => {
  await using pool = await startPool();
  const { simulator, repository, folder: points } = pool;
  const vm = await makeVm(pool, 'web');
  await simulator.writeDisk(vm.uuid, '0', 0, randomBytes(8 * MIB));
  const hash = await simulator.hashDisk(vm.disks[0]!.uuid);
  simulator.fault('export-cut', { after: MIB, path: '/export_raw_vdi' });
  const { code, printed } = await example('resuming-backup', [points, 'web', '3', '0'], { env: environment(pool) });
  expect(printed).toMatch(/can be gone on with until 20/);
  expect(printed).toMatch(/bytes moved, go on$/m);
  expect(code).toBe(0);
  const [point] = await repository.list();
  await using disk = await repository.openDisk(point!, vm.disks[0]!.uuid);
  expect(await hashDisk(disk)).toBe(hash);
});

test('restore-to-another-pool shows conflicts, and restores where there are none', async () => {
  await using source = await startPool();
  await using target = await startPool();
  const vm = await makeVm(source, 'web');
  const { point } = await backupVm(source.host, source.repository, { vm: vm.uuid });
  const args = [source.folder, vm.uuid, '--name', 'web again'];
  const [sr] = (await target.host.listRecords('SR')).filter(({ content_type }) => content_type !== 'iso');
  const restored = await example('restore-to-another-pool', [...args, '--sr', sr!.uuid, '--start'], {
    env: environment(target),
  });
  expect(restored.printed).toMatch(/restored as original, read back and compared/);
  expect(restored.code).toBe(0);
  const made = (await target.host.listVms()).find(({ name_label }) => name_label === 'web again')!;
  expect(made.power_state).toBe('Running');
  const disks = await target.host.listDisks(made.ref);
  const hashes = await Promise.all(disks.map(({ vdi }) => target.simulator.hashDisk(vdi.uuid)));
  const expected = await Promise.all(vm.disks.map(({ uuid }) => source.simulator.hashDisk(uuid)));
  expect(hashes.sort()).toEqual(expected.sort());

  const wrong = await example('restore-to-another-pool', [...args, '--sr', 'no such storage'], {
    env: environment(target),
  });
  expect(wrong.printed).toMatch(/conflict: /);
  expect(wrong.code).toBe(1);
  const none = await example('restore-to-another-pool', [source.folder, vm.uuid, '--point', 'none'], {
    env: environment(target),
  });
  expect(none.printed).toMatch(/no such point/);
  expect(none.code).toBe(1);
  expect(point.vmUuid).toBe(vm.uuid);
});

describe('images', () => {
  /** An archive of a VM as the host exports it, and its disks. */
  async function exported(dir: string) {
    await using pool = await startPool();
    const vm = await makeVm(pool, 'web');
    await pool.host.call('VM.hard_shutdown', (await pool.host.getVm(vm.uuid)).ref);
    const path = `${dir}/web.xva`;
    await using transfer = await pool.host.exportVm(vm.uuid);
    await writeFile(path, transfer.chunks);
    const hashes = await Promise.all(vm.disks.map(({ uuid }) => pool.simulator.hashDisk(uuid)));
    return { path, hashes };
  }

  async function flip(path: string, at: number) {
    await using file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, at);
    byte[0]! ^= 1;
    await file.write(byte, 0, 1, at);
  }

  test('check-image tells what is whole and what is not', async () => {
    const dir = await tempDir();
    const { path } = await exported(dir);
    const vhd = `${dir}/disk.vhd`;
    await writeVhd(memoryDisk(patterned(4 * MIB)), vhd);
    expect(await example('check-image', [path, vhd])).toMatchObject({
      code: 0,
      printed: `${path}: XVA, whole\n${vhd}: VHD, whole\n`,
    });
    await flip(path, 2 * MIB);
    await flip(vhd, 515);
    await rename(vhd, `${dir}/no-name`); // the bytes tell
    expect((await example('check-image', [`${dir}/no-name`])).printed).toMatch(/no-name: VHD, DAMAGED/);
    await rename(`${dir}/no-name`, vhd);
    const gone = await example('check-image', [`${dir}/gone`, path]);
    expect(gone.printed).toMatch(/gone: ENOENT.*\n.*web\.xva: XVA, DAMAGED/);
    const { code, printed } = await example('check-image', [path, vhd]);
    expect(printed).toMatch(/web\.xva: XVA, DAMAGED\n {2}XVA_\S+: .*\n/);
    expect(printed).toMatch(/disk\.vhd: VHD, DAMAGED\n {2}VHD_\S+: .*\n/);
    expect(code).toBe(1);
  });

  test('convert makes any format of any other', async () => {
    const dir = await tempDir();
    const { path, hashes } = await exported(dir);
    const at = (name: string) => `${dir}/${name}`;
    const convert = async (...args: string[]) => expect(await example('convert', args)).toMatchObject({ code: 0 });
    await convert(path, at('a.raw'));
    await convert(at('a.raw'), at('b.vhd'));
    await convert(at('b.vhd'), at('c.xva'), '--like', path, '--device', '1');
    await convert(at('c.xva'), at('d.vhd'), '--device', '1');
    await convert(at('c.xva'), at('e.raw'));
    await using raw = await openRawDisk(at('a.raw'));
    expect(await hashDisk(raw)).toBe(hashes[0]);
    await using again = await openRawDisk(at('e.raw'));
    expect(await hashDisk(again)).toBe(hashes[0]);
    await using vhd = await openVhd(at('d.vhd'));
    expect(await compareDisks(vhd, raw)).toMatchObject({ equal: true });
    expect((await checkXva(at('c.xva'))).ok).toBe(true);
    await using archive = await openXva(at('c.xva'));
    expect(archive.disks.map(({ size }) => size)).toEqual([8 * MIB, 8 * MIB]);
    if (hasTool('qemu-img')) {
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'vpc', at('a.raw'), at('b.vhd')]);
    }
    if (hasTool('bsdtar')) {
      const { stdout } = await run('bsdtar', ['-tf', at('c.xva')]);
      expect(stdout.split('\n')[0]).toBe('ova.xml');
    }
    await rename(at('b.vhd'), at('disk'));
    await convert(at('disk'), at('g.raw'));
    await using named = await openRawDisk(at('g.raw'));
    expect(await hashDisk(named)).toBe(hashes[0]);
    await flip(path, 2 * MIB);
    const damaged = await example('convert', [path, at('h.raw')]);
    expect(damaged.printed).toMatch(/web\.xva is damaged: /);
    expect(damaged.code).toBe(1);
    const refused = await example('convert', [at('disk'), at('f.xva')]);
    expect(refused.printed).toMatch(/^an archive needs a VM: --like <archive>\nusage: /);
    expect(refused.code).toBe(2);
    expect(await readdir(dir)).not.toContain('f.xva');
  });

  test('export-xva-disk takes one disk out, and says where there is none', async () => {
    const dir = await tempDir();
    const { path, hashes } = await exported(dir);
    expect(await example('export-xva-disk', [path, '1', `${dir}/one.raw`])).toMatchObject({ code: 0 });
    await using raw = await openRawDisk(`${dir}/one.raw`);
    expect(await hashDisk(raw)).toBe(hashes[1]);
    expect(await example('export-xva-disk', [path, '0', `${dir}/zero.vhd`])).toMatchObject({ code: 0 });
    await using vhd = await openVhd(`${dir}/zero.vhd`);
    expect(await hashDisk(vhd)).toBe(hashes[0]);
    const none = await example('export-xva-disk', [path, '7', `${dir}/none.raw`]);
    expect(none.printed).toMatch(/has no disk 7/);
    expect(none.code).toBe(1);
  });

  test('a raw image is written sparse', async () => {
    const dir = await tempDir();
    const disk = new Uint8Array(8 * MIB);
    disk.set(patterned(4096), 5 * MIB);
    await writeVhd(memoryDisk(disk), `${dir}/a.vhd`);
    await example('convert', [`${dir}/a.vhd`, `${dir}/a.raw`]);
    const { stdout } = await run('du', ['-k', `${dir}/a.raw`]);
    expect(Number.parseInt(stdout, 10)).toBeLessThan(1024);
    expect(await writeRaw(memoryDisk(disk), `${dir}/b.raw`)).toBeLessThan(MIB);
  });
});

test('http-service begins, shows, streams and aborts backups, and ends cleanly', async () => {
  await using pool = await startPool();
  const { simulator, repository, folder: points } = pool;
  await makeVm(pool, 'web');
  const child = spawn(process.execPath, [await bundle('http-service'), points], {
    env: { ...process.env, ...environment(pool) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  try {
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
    const base = `http://127.0.0.1:${(JSON.parse(line) as { port: number }).port}`;
    const call = async (method: string, path: string) => {
      const response = await fetch(base + path, { method });
      return { status: response.status, body: (await response.json()) as Record<string, string> };
    };
    const wait = async (job: string) => {
      const response = await fetch(`${base}${job}/events`);
      return (await response.text()).split('\n\n').map((event) => event.split('\n')[0]);
    };
    const disarm = simulator.fault('stall', { after: MIB, path: '/export_raw_vdi' });
    const first = await call('POST', '/vms/web/backup');
    expect(first.status).toBe(202);
    expect(await call('POST', '/vms/web/backup')).toEqual({ status: 409, body: first.body });
    expect(await call('GET', first.body['job']!)).toMatchObject({ status: 200, body: { state: 'running' } });
    expect(await call('DELETE', first.body['job']!)).toMatchObject({ status: 202 });
    expect((await wait(first.body['job']!)).at(-2)).toBe('event: end');
    expect(await call('GET', first.body['job']!)).toMatchObject({ body: { state: 'aborted' } });
    expect(await repository.list()).toEqual([]);

    disarm(); // it may not have come to that
    const second = await call('POST', '/vms/web/backup');
    expect(second.status).toBe(202);
    const events = await wait(second.body['job']!);
    expect(events).toContain('event: stage');
    expect(events).toContain('event: bytes-moved');
    expect(events.at(-2)).toBe('event: end');
    expect(await call('GET', second.body['job']!)).toMatchObject({ status: 200, body: { state: 'success' } });
    expect(await repository.list()).toHaveLength(1);
    expect(await call('GET', '/jobs/none')).toMatchObject({ status: 404 });
    expect(await call('GET', '/%')).toMatchObject({ status: 400 });
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    expect(await repository.list()).toHaveLength(1);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
});

test('own-client works with the client that the caller has, and leaves it open', async () => {
  await using pool = await startPool();
  await makeVm(pool, 'web');
  const { code, printed } = await example('own-client', [pool.folder, 'web'], { env: environment(pool) });
  expect(printed).toMatch(/^2\S+-full-\S+\n\[ 'OpaqueRef:/);
  expect(code).toBe(0);
  expect(await pool.repository.list()).toHaveLength(1);
});

test('every example is run, and the index lists it', async () => {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.ts')).map((name) => name.slice(0, -3));
  expect([...used, ...ELSEWHERE, ...SHARED].sort()).toEqual(names.sort());
  const lines: string[] = [];
  for await (const line of createInterface(createReadStream(`${folder}README.md`))) lines.push(line);
  for (const name of names) expect(lines.filter((line) => line.includes(`(${name}.ts)`))).toHaveLength(1);
});
