import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, chown, constants, copyFile, cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { installedPackage, npmCli } from './installed-package.ts';
import { makeTempDir } from './temp-dir.ts';

const run = promisify(execFile);
const top = fileURLToPath(new URL('../..', import.meta.url));

/** Without rights of its own: `nobody`. */
const NOBODY = 65_534;

/** What a program of the user's has printed. */
export interface Printed {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * A user of the package on a machine that has nothing else of ours: one release of Node, npm, an empty folder and
 * tarballs. Where the tests run as root, all that the user starts runs as `nobody`.
 */
export interface PlainUser extends AsyncDisposable {
  /** As the user's Node tells it. */
  readonly nodeVersion: string;
  /** The folder that the package is installed into. */
  readonly app: string;
  /** What npm printed when it installed. */
  readonly installLog: string;
  /** Runs a program of the user's in their folder, with the PATH that the tests have. */
  node(...args: readonly string[]): Promise<Printed>;
}

/** Installs the package as a user does, on a release of Node, without a network. */
export async function plainUser(major: string): Promise<PlainUser> {
  const { tarballs } = await installedPackage();
  const home = await makeTempDir();
  try {
    await chmod(home.path, 0o755);
    // Copies, because another user may not be let through to where ours are.
    const node = await copiedNode(major, home.file('bin'));
    const npm = await copiedNpm(home.file('npm'));
    const packed = await Promise.all(tarballs.map((path) => copied(path, home.file(basename(path)))));
    const app = home.file('app');
    await mkdir(app);
    await writeFile(join(app, 'package.json'), JSON.stringify({ private: true }));
    const cache = home.file('cache');
    await mkdir(cache);
    const root = process.getuid?.() === 0;
    const rights = root ? { uid: NOBODY, gid: NOBODY } : {};
    if (root) for (const path of [app, join(app, 'package.json'), cache]) await chown(path, NOBODY, NOBODY);
    const env = { PATH: `${dirname(node)}:${process.env['PATH']}`, HOME: cache, TMPDIR: cache, CI: process.env['CI'] };
    const start = (...args: readonly string[]) =>
      run(node, args, { cwd: app, env, ...rights, maxBuffer: 64 * 2 ** 20 });
    const version = await start('--version');
    const installed = await start(npm, 'install', '--offline', '--no-update-notifier', '--cache', cache, ...packed);
    return {
      nodeVersion: version.stdout.trim(),
      app,
      installLog: installed.stdout + installed.stderr,
      node: start,
      [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
    };
  } catch (error) {
    await home[Symbol.asyncDispose]();
    throw error;
  }
}

/** The npm package `node` brings Node; it is installed once, and kept where `.ci/run` keeps it. */
async function installedNode(major: string): Promise<string> {
  if (process.version.startsWith(`v${major}.`)) return process.execPath;
  const folder = join(top, 'node_modules', '.cache', `node-${major}`);
  const node = join(folder, 'node_modules', 'node', 'bin', 'node');
  if (existsSync(node)) return node;
  const making = `${folder}-${randomUUID()}`;
  try {
    await mkdir(making, { recursive: true });
    await writeFile(join(making, 'package.json'), JSON.stringify({ private: true, allowScripts: { node: true } }));
    const install = [await npmCli(), 'install', '--prefix', making, '--no-audit', '--no-fund', `node@${major}`];
    await run(process.execPath, install, { maxBuffer: 64 * 2 ** 20 });
    await rename(making, folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error; // else another file's test was first
    });
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return node;
}

async function copiedNode(major: string, folder: string): Promise<string> {
  await mkdir(folder);
  return copied(await installedNode(major), join(folder, 'node'));
}

async function copied(from: string, to: string): Promise<string> {
  await copyFile(from, to, constants.COPYFILE_FICLONE);
  return to;
}

/** @returns the path of its script. */
async function copiedNpm(folder: string): Promise<string> {
  const cli = await npmCli();
  const source = dirname(dirname(cli));
  const { name } = JSON.parse(await readFile(join(source, 'package.json'), 'utf8')) as { name: string };
  if (name !== 'npm') throw new Error(`${cli} is not where npm has its script`);
  await cp(source, folder, { recursive: true, dereference: true });
  return join(folder, 'bin', basename(cli));
}
