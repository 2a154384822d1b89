import { execFile } from 'node:child_process';
import { cp, open, readdir, readFile } from 'node:fs/promises';
import { extname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { preflight } from '../../src/preflight/index.ts';
import { installedPackage } from '../support/installed-package.ts';
import { tempDir } from '../support/temp-dir.ts';
import { startRoad } from './support/road.ts';
import { group, row } from './support/row.ts';

const run = promisify(execFile);

/**
 * How the programs and libraries of every system begin: ELF, Mach-O in its four kinds and fat, PE. WebAssembly is not
 * among them: Node runs it on every machine, and nothing is built (docs/decisions/0006).
 */
const NATIVE = ['7f454c46', 'feedface', 'feedfacf', 'cefaedfe', 'cffaedfe', 'cafebabe', '4d5a'];
const NATIVE_NAMES = new Set(['.node', '.so', '.dylib', '.dll', '.exe', '.ko', '.o', '.a', '.rpm', '.deb', '.gyp']);

interface Manifest {
  readonly name?: string;
  readonly scripts?: Readonly<Record<string, string>>;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly gypfile?: boolean;
}

/** Every file that an installation brings, our own and those of the production dependencies. */
async function installedFiles(): Promise<{ readonly folder: string; readonly paths: string[] }> {
  const folder = join((await installedPackage()).app, 'node_modules');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  expect(paths.length).toBeGreaterThan(50);
  return { folder, paths };
}

async function manifests(): Promise<Manifest[]> {
  const { folder, paths } = await installedFiles();
  const lock = JSON.parse(await readFile(join(folder, '.package-lock.json'), 'utf8')) as { packages: object };
  const own = Object.keys(lock.packages).map((path) => join(folder, relative('node_modules', path), 'package.json'));
  expect(paths).toEqual(expect.arrayContaining(own));
  return Promise.all(own.map(async (path) => JSON.parse(await readFile(path, 'utf8')) as Manifest));
}

async function firstBytes(path: string): Promise<string> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
  return buffer.toString('hex', 0, bytesRead);
}

/** Imports every sub-path in `folder` and gives their number; the child may not start programs or load native code. */
async function importAll(folder: string): Promise<number> {
  const script = `
    import { readFileSync } from 'node:fs';
    const { exports } = JSON.parse(readFileSync('node_modules/xen-backup-sdk/package.json', 'utf8'));
    const names = Object.keys(exports).filter((name) => name !== './package.json');
    for (const name of names) await import('xen-backup-sdk' + name.slice(1));
    console.log(names.length);
    console.log(process.permission.has('child'), process.permission.has('fs.write'));`;
  const flags = ['--permission', '--allow-fs-read=*', '--input-type=module', '--eval', script];
  const { stdout } = await run(process.execPath, flags, { cwd: folder, env: { PATH: '' } });
  const [count, rights] = stdout.trimEnd().split('\n');
  expect(rights).toBe('false false');
  return Number(count);
}

group('NBD client setup on the node', () => {
  row(
    'S33',
    'no pre-built modules: no native binary and no install script',
    async () => {
      const { folder, paths } = await installedFiles();
      for (const path of paths) {
        const name = relative(folder, path);
        expect(NATIVE_NAMES.has(extname(path)), name).toBe(false);
        const start = await firstBytes(path);
        expect(
          NATIVE.some((magic) => start.startsWith(magic)),
          name,
        ).toBe(false);
      }
      for (const { name, scripts = {}, gypfile } of await manifests()) {
        expect(
          Object.keys(scripts).filter((script) => /^(?:pre|post)?install$/.test(script)),
          name,
        ).toEqual([]);
        expect(gypfile ?? false, name).toBe(false);
      }
    },
    { timeoutMs: 300_000 },
  );

  row(
    'S34',
    'no fixed folder: works from any node_modules',
    async () => {
      const { app } = await installedPackage();
      const moved = join(await tempDir(), 'an other place', 'für alle');
      await cp(join(app, 'node_modules'), join(moved, 'node_modules'), { recursive: true });
      expect(await importAll(moved)).toBe(await importAll(app));
      const shipped = join(moved, 'node_modules', 'xen-backup-sdk', 'dist');
      for (const name of (await readdir(shipped)).filter((file) => file.endsWith('.js'))) {
        expect(await readFile(join(shipped, name), 'utf8'), name).not.toContain('/dev/nbd');
      }
    },
    { timeoutMs: 300_000 },
  );

  row(
    'S35',
    "installed by the language's package manager alone, offline, too",
    async () => {
      // installedPackage() ran `npm install --offline` with an empty cache and an empty PATH.
      const { app, installLog } = await installedPackage();
      expect(installLog).toMatch(/added \d+ packages/);
      expect(installLog).not.toMatch(/npm (?:error|warn (?:allow-scripts|deprecated))/);
      expect(await importAll(app)).toBeGreaterThan(10);
    },
    { timeoutMs: 300_000 },
  );

  row(
    'S36',
    'no module to build: no compiler, kernel header or download at install or run time',
    async () => {
      const { folder, paths } = await installedFiles();
      expect(await importAll(join(folder, '..'))).toBeGreaterThan(10); // no program in the PATH, none may be started
      const shipped = paths.filter((path) => /xen-backup-sdk.dist.*\.js$/.test(relative(folder, path)));
      for (const path of shipped) {
        const text = await readFile(path, 'utf8');
        expect(text, path).not.toMatch(/modprobe|insmod|kernel-devel|\/lib\/modules|node-gyp|process\.dlopen/);
        expect(
          text.match(/['"`]https?:\/\/(?!\$|127\.|\[|localhost|www\.w3\.org)[\w.-]+\.[a-z]{2,}/g) ?? [],
          path,
        ).toEqual([]);
      }
    },
    { timeoutMs: 300_000 },
  );

  row(
    'S37',
    'Linux, macOS and Windows alike (run on Linux only: no dependency names a platform, every file name fits all)',
    async () => {
      for (const { name, os, cpu, libc } of await manifests()) {
        expect([os, cpu, libc], name).toEqual([undefined, undefined, undefined]);
      }
      const { folder, paths } = await installedFiles();
      const names = paths.map((path) => relative(folder, path));
      expect(
        names.filter((name) => /[<>:"|?*]|(?:^|[\\/])(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i.test(name)),
      ).toEqual([]);
      expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(names.length);
    },
    { timeoutMs: 300_000 },
  );

  row('S38', 'preflight opens a TLS NBD session to each chosen host and reads one block', async ({ profile }) => {
    await using road = await startRoad(profile);
    const session = async () =>
      (await preflight(road.host, { hosts: ['simulated-host'] })).filter(({ id }) => id.startsWith('nbd.s'));
    road.asked();
    expect(await session()).toMatchObject([
      {
        id: 'nbd.session',
        severity: 'ok',
        evidence: { tls: true, bytesRead: 0 },
        message: expect.stringContaining('not read'),
      },
      { id: 'nbd.slots' },
    ]);
    expect(road.asked().filter(({ kind }) => kind === 'nbd')).toEqual([]); // no disk was opened
    await road.backup(); // keeps a snapshot
    road.asked();
    expect(await session()).toMatchObject([{ id: 'nbd.session', severity: 'ok', evidence: { bytesRead: 65_536 } }, {}]);
    const reads = road.asked().filter(({ kind, method }) => kind === 'nbd' && method === 'READ');
    expect(reads.map(({ query }) => query)).toEqual([{ offset: '0', length: '65536' }]);
    const unknown = await preflight(road.host, { hosts: ['elsewhere'] });
    expect(unknown[0]).toMatchObject({ id: 'host.missing', subject: { name: 'elsewhere' } });
  });

  row('S39', 'no restart: after NBD is enabled the next call in the same process works', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const [network] = await road.host.listNetworks();
    const options = { vms: ['web'], network: network!.uuid };
    const problems = async () => (await preflight(road.host, options)).filter(({ severity }) => severity === 'error');
    const [missing] = await problems();
    expect(missing).toMatchObject({ id: 'nbd.no-network', subject: { kind: 'network', uuid: network!.uuid } });
    await road.backup();
    await expect(road.backup({ mode: 'incremental' })).rejects.toMatchObject({ code: 'PLAN_CONFLICT' });
    await missing!.fix!.apply!();
    expect(await problems()).toEqual([]);
    const { manifest } = await road.backup({ mode: 'incremental', network: network!.uuid });
    expect(manifest.disks.map(({ mode, transport }) => [mode, transport])).toEqual([
      ['delta', 'nbd'],
      ['delta', 'nbd'],
    ]);
  });
});
