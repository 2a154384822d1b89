import { mkdir, readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

const folder = fileURLToPath(new URL('../../examples/', import.meta.url));
const HOST = '; environment: XEN_URL, XEN_USER (root unless told), XEN_PASSWORD, XEN_FINGERPRINT';
const SHARED = ['connect', 'open-image', 'usage'];

/** What each takes, and a command line that is wrong otherwise than by its length. */
const EXAMPLES: Readonly<Record<string, readonly [usage: string, wrong: readonly string[]]>> = {
  'check-image': ['<file> …', ['--deep', 'file']],
  convert: ['<source> <target> [--device 1] [--like <archive>]', ['a.raw', 'b.vhd', 'c.vhd']],
  'export-xva-disk': ['<archive> <device: 0, 1 …> <target.vhd or target.raw>', ['web.xva', '0']],
  'http-service': [`<repository folder> [<port>]${HOST}`, ['backups', 'http']],
  'nightly-backup': [`<repository folder> [--image] <VM> …${HOST}`, ['backups']],
  'own-client': [`<repository folder> <VM>${HOST}`, ['backups', 'web', 'db']],
  'restore-to-another-pool': [
    `<repository folder> <VM uuid> [--point <name>] [--name <name>] [--sr <uuid or name>] [--network <uuid or name>] [--start]${HOST}`,
    ['backups', 'web', '--storage', 'here'],
  ],
  'resuming-backup': [
    `<repository folder> <VM> [<tries: 5> [<seconds between them: 60>]]${HOST}`,
    ['backups', 'web', 'many'],
  ],
  'serve-point': ['<repository folder> <VM uuid> [<point: latest> [<device: 0>]]', ['backups', '']],
};

let dir: TempDir;
beforeAll(async () => {
  dir = await makeTempDir();
  await mkdir(dir.file('work'));
});
afterAll(() => dir[Symbol.asyncDispose]());

const host = { XEN_URL: 'https://127.0.0.1:1', XEN_PASSWORD: 'secret' };

describe.each(Object.entries(EXAMPLES))('%s', (name, [usage, wrong]) => {
  const line = `usage: node examples/${name}.ts ${usage}\n`;
  let bundle: string;
  beforeAll(async () => {
    bundle = dir.file(`${name}.mjs`);
    await bundleProgram(`${folder}${name}.ts`, bundle);
  });

  const isWrong = async (args: readonly string[], env: Readonly<Record<string, string>>) => {
    const { code, printed } = await runChild(bundle, args, { cwd: dir.file('work'), env });
    expect(printed.slice(-line.length)).toBe(line);
    expect(printed.split('\n').length).toBeLessThan(4);
    expect(code).toBe(2);
    expect(await readdir(dir.file('work'))).toEqual([]); // no repository was begun
    return printed;
  };

  test('without arguments prints its usage and nothing else', async () => {
    expect(await isWrong([], host)).toBe(line);
  });

  test('refuses what it does not take', () => isWrong(wrong, host));

  if (!usage.endsWith(HOST)) return;

  test('says which variables are not set', async () => {
    const right = ['backups', 'web'].slice(0, name === 'http-service' ? 1 : 2);
    expect(await isWrong(right, { XEN_URL: '', XEN_PASSWORD: '' })).toBe(`not set: XEN_URL, XEN_PASSWORD\n${line}`);
    expect(await isWrong(right, { ...host, XEN_PASSWORD: '' })).toBe(`not set: XEN_PASSWORD\n${line}`);
  });
});

test('no example is written in what Node 22 cannot read', async () => {
  const files = await readdir(folder, { recursive: true });
  for (const name of files.filter((one) => one.endsWith('.ts'))) {
    expect(await readFile(`${folder}${name}`, 'utf8'), name).not.toMatch(/^\s*(await )?using /m);
  }
});

test('every example is here, and those that connect say so', async () => {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.ts')).map((name) => name.slice(0, -3));
  expect([...Object.keys(EXAMPLES), ...SHARED].sort()).toEqual(names.sort());
  for (const [name, [usage]] of Object.entries(EXAMPLES)) {
    const connects = /connectFromEnvironment|XEN_URL/.test(await readFile(`${folder}${name}.ts`, 'utf8'));
    expect([name, usage.endsWith(HOST)]).toEqual([name, connects]);
  }
});
