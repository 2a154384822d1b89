import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const top = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(top, 'node_modules', '.cache', 'xen-backup-sdk');

/** What makes the package what it is. */
const INPUTS = [
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'LICENSE',
  'NOTICE',
  'README.md',
  'SECURITY.md',
  'docs',
  'examples',
  'package-lock.json',
  'package.json',
  'scripts/bundle-xen-api.ts',
  'src',
  'test/support/installed-package.ts',
  'tsconfig.json',
  'tsup.config.ts',
];

export interface PackedFile {
  readonly path: string;
  readonly size: number;
}

/** Our package as a user gets it: built, packed, and installed by npm into an empty folder. */
export interface InstalledPackage {
  /** The folder that holds `node_modules`. */
  readonly app: string;
  /** Our tarball, and one for each production dependency, by their paths: what `npm install` needs without a network. */
  readonly tarballs: readonly string[];
  /** The files of the tarball, by their paths in it. */
  readonly files: readonly PackedFile[];
  /** Size of the tarball, in bytes. */
  readonly packedSize: number;
  /** Size of its files, in bytes. */
  readonly unpackedSize: number;
  /** What npm printed when it installed. */
  readonly installLog: string;
}

/**
 * Builds and installs the package. That takes a quarter of a minute, so the result is kept for as long as nothing
 * that it is made of changes: treat it as read-only.
 *
 * npm installs without a network and with an empty cache, from our tarball and those of the production dependencies.
 */
export async function installedPackage(): Promise<InstalledPackage> {
  const home = join(cache, await inputsHash());
  const known = await readFile(join(home, 'package-facts.json'), 'utf8').catch(ignoreMissing);
  if (known !== undefined) return placed(JSON.parse(known) as PackageFacts, home);

  const work = join(cache, `making-${randomUUID()}`);
  try {
    await mkdir(join(work, 'app'), { recursive: true });
    const facts = await makePackage(work);
    await writeFile(join(work, 'package-facts.json'), JSON.stringify(facts));
    await rename(work, home).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST' && error.code !== 'EPERM') throw error;
    }); // a test in another process was first, with the same result
    await removeOld();
    return placed(facts, home);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What is kept: tarballs by their names alone. */
type PackageFacts = Omit<InstalledPackage, 'app'>;

function placed(facts: PackageFacts, home: string): InstalledPackage {
  return { ...facts, app: join(home, 'app'), tarballs: facts.tarballs.map((name) => join(home, name)) };
}

async function makePackage(work: string): Promise<PackageFacts> {
  const stage = join(work, 'stage');
  await mkdir(stage);
  for (const name of INPUTS.filter((input) => /^[A-Z]|^docs$|^examples$|^package\.json$/.test(input))) {
    await cp(join(top, name), join(stage, name), { recursive: true }).catch(ignoreMissing); // what is missing is seen in the list of files
  }
  await run(process.execPath, [join(top, 'node_modules/tsup/dist/cli-default.js'), '--out-dir', join(stage, 'dist')], {
    cwd: top,
  });
  const [packed] = await pack(stage, work);
  if (packed === undefined) throw new Error('npm pack told nothing');
  const dependencies = await Promise.all((await productionPackages()).map((path) => pack(join(top, path), work)));
  const tarballs = [packed, ...dependencies.flat()].map(({ filename }) => filename);

  const app = join(work, 'app');
  await writeFile(join(app, 'package.json'), JSON.stringify({ private: true }));
  const noCache = join(work, 'empty-npm-cache');
  const { stdout, stderr } = await npm(
    ['install', '--offline', '--cache', noCache, ...tarballs.map((name) => join(work, name))],
    app,
  );
  return {
    tarballs,
    files: packed.files.map(({ path, size }) => ({ path, size })),
    packedSize: packed.size,
    unpackedSize: packed.unpackedSize,
    installLog: stdout + stderr,
  };
}

/** What has been made of earlier sources; a test that runs now made its own within a day. */
async function removeOld(): Promise<void> {
  for (const name of await readdir(cache)) {
    const path = join(cache, name);
    const facts = await stat(path).catch(ignoreMissing);
    if (facts !== undefined && Date.now() - facts.mtimeMs > 86_400_000)
      await rm(path, { recursive: true, force: true });
  }
}

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly PackedFile[];
}

async function pack(folder: string, target: string): Promise<Packed[]> {
  const { stdout } = await npm(['pack', '--json', '--ignore-scripts', '--pack-destination', target, folder], target);
  return JSON.parse(stdout) as Packed[];
}

/** npm on our own Node, with a PATH on which no compiler and no download tool can be found. */
async function npm(args: readonly string[], cwd: string): Promise<{ stdout: string; stderr: string }> {
  const cli = await npmCli();
  const env = { ...process.env, PATH: join(top, 'node_modules', '.bin') };
  return run(process.execPath, [cli, ...args], { cwd, env, maxBuffer: 64 * 2 ** 20 });
}

let cliFound: Promise<string> | undefined;

/** npm's own script: under `npm run` it says where it is, else it lies beside the `npm` in the PATH. */
export function npmCli(): Promise<string> {
  cliFound ??= (async () => {
    const told = process.env['npm_execpath'];
    if (told?.endsWith('npm-cli.js') === true) return told;
    for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
      for (const inside of ['../lib/node_modules/npm/bin/npm-cli.js', 'node_modules/npm/bin/npm-cli.js']) {
        const path = join(folder, inside);
        if ((await readFile(path).catch(ignoreMissing)) !== undefined) return path;
      }
    }
    throw new Error('npm was not found through the PATH');
  })();
  return cliFound;
}

/** The folders of the production dependencies, below the project's. */
export async function productionPackages(): Promise<string[]> {
  const lock = JSON.parse(await readFile(join(top, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== '' && entry.dev !== true && entry.devOptional !== true)
    .map(([path]) => path);
}

async function inputsHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const input of INPUTS) {
    for (const path of await filesUnder(join(top, input))) hash.update(`${path}\0`).update(await readFile(path));
  }
  return hash.digest('hex').slice(0, 16);
}

async function filesUnder(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOTDIR') return undefined;
      return ignoreMissing(error) ?? [];
    },
  );
  if (entries === undefined) return [path];
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
  return undefined;
}
