import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type PlainUser, plainUser } from '../support/plain-user.ts';

const top = new URL('../../', import.meta.url);
const program = (name: string) => fileURLToPath(new URL(`programs/${name}`, import.meta.url));

/** Releases that a user may have: the oldest that we allow, and those since. */
const RELEASES = ['22', '24', '26'] as const;

/** What each sub-path may load of the package that speaks to hosts, and of the packages that it depends on. */
const WITHOUT_HOSTS = ['cbt', 'console', 'disk', 'nbd', 'simulator', 'store', 'vhd', 'xva'];
const WITH_HOSTS = ['', 'backup', 'host', 'preflight', 'restore', 'snapshot'];

describe.each(RELEASES)('on Node %s, installed by a user without rights,', (major) => {
  let user: PlainUser;
  beforeAll(async () => {
    user = await plainUser(major);
  }, 300_000);
  afterAll(() => user[Symbol.asyncDispose]());

  /** A program of `programs`, in the user's folder. */
  async function runProgram(name: string, ...args: readonly string[]): Promise<string> {
    const path = join(user.app, name);
    await writeFile(path, await readFile(program(name)));
    const { stdout, stderr } = await user.node(path, ...args);
    expect(stderr).toBe('');
    return stdout;
  }

  test('it is the release that it should be, and not root', async () => {
    expect(user.nodeVersion).toMatch(new RegExp(`^v${major}\\.`));
    const { stdout } = await user.node('--print', 'process.getuid()');
    expect(Number(stdout)).toBeGreaterThan(0);
  });

  test('npm installs the package and its few dependencies, and nothing is to be run or compiled', async () => {
    const modules = join(user.app, 'node_modules');
    const lock = JSON.parse(await readFile(join(modules, '.package-lock.json'), 'utf8')) as {
      packages: Record<string, { hasInstallScript?: boolean }>;
    };
    expect(Object.keys(lock.packages).sort()).toEqual(
      [
        '@rgrove/parse-xml',
        'debug',
        'eventemitter3',
        'ms',
        'p-queue',
        'p-timeout',
        'xen-backup-sdk',
        'xxhash-wasm',
      ].map((name) => `node_modules/${name}`),
    );
    expect(Object.values(lock.packages).filter(({ hasInstallScript }) => hasInstallScript === true)).toEqual([]);
    const files = await readdir(modules, { recursive: true });
    expect(files.filter((name) => /\.node$|(^|\/)binding\.gyp$/.test(name))).toEqual([]);
    expect(user.installLog).toMatch(/^added 8 packages/m);
    expect(user.installLog).not.toMatch(/npm warn|deprecated/i);
  });

  test('import and require give the same of every sub-path, and each name is one thing wherever it comes from', async () => {
    const { exports } = JSON.parse(await readFile(new URL('package.json', top), 'utf8')) as { exports: object };
    const printed = await runProgram('same-everywhere.mjs');
    const told = JSON.parse(printed) as { subPaths: string[]; names: number; shared: number; different: string[] };
    expect(told.subPaths).toEqual(Object.keys(exports));
    expect(told.different).toEqual([]);
    expect(told.names).toBeGreaterThan(120);
    expect(told.shared).toBeGreaterThan(50);
  });

  test('what one sub-path throws is an instance of the class of another', async () => {
    expect(JSON.parse(await runProgram('errors-across.mjs'))).toEqual([
      { from: 'vhd', code: 'VHD_NOT_VHD', isBackupError: true, isFormatError: true },
      { from: 'cbt', code: 'CBT_LENGTH', isBackupError: true, isFormatError: true },
      { from: 'nbd', code: 'NBD_CONNECT_FAILED', isBackupError: true, isFormatError: false },
      { from: 'host', code: 'HOST_UNREACHABLE', isBackupError: true, isFormatError: false },
      { from: 'store', code: 'REPOSITORY_MISSING', isBackupError: true, isFormatError: false },
    ]);
  });

  test('who reads formats and disks loads nothing that speaks to hosts', async () => {
    const loaded = async (path: string) =>
      JSON.parse(await runProgram('loaded-code.mjs', path === '' ? 'xen-backup-sdk' : `xen-backup-sdk/${path}`)) as {
        folders: string[];
        packages: string[];
        xenApi: boolean;
      };
    for (const path of WITHOUT_HOSTS) {
      const { folders, xenApi } = await loaded(path);
      expect({ path, xenApi, host: folders.includes('host') }).toEqual({ path, xenApi: false, host: false });
    }
    for (const path of WITH_HOSTS) {
      const { folders, xenApi } = await loaded(path);
      expect({ path, xenApi, host: folders.includes('host') }).toEqual({ path, xenApi: true, host: true });
    }
    const { folders, packages } = await loaded('vhd');
    expect(folders).toEqual(['bytes', 'core', 'disk', 'vhd']);
    expect(packages).toEqual(['debug', 'ms', 'xxhash-wasm']);
  });
});
