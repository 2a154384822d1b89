import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { bundleXenApi } from '../../scripts/bundle-xen-api.ts';

/**
 * Bundles a program of `test/support` as the package is bundled, for a process of its own.
 *
 * @returns the path of the bundle, in `dir`.
 */
export async function bundleChild(name: string, dir: string): Promise<string> {
  const outfile = `${dir}/${name}.mjs`;
  await bundleProgram(fileURLToPath(new URL(`${name}.ts`, import.meta.url)), outfile);
  return outfile;
}

/** Bundles a program that imports `xen-backup-sdk` as a user does, against the sources of this project. */
export async function bundleProgram(path: string, outfile: string, plugins: readonly Plugin[] = []): Promise<void> {
  await build({
    entryPoints: [path],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    plugins: [...plugins, bundleXenApi(), ownName],
    logLevel: 'error',
  });
}

const SOURCES = fileURLToPath(new URL('../../src/', import.meta.url));

/** The package's own name, as package.json maps it. */
const ownName: Plugin = {
  name: 'own-name',
  setup({ onResolve }) {
    onResolve({ filter: /^xen-backup-sdk(\/|$)/ }, ({ path }) => {
      const [, folder = ''] = path.split('/');
      return { path: join(SOURCES, folder === 'nbd' ? 'nbd-protocol' : folder, 'index.ts') };
    });
  },
};

export interface ChildOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ChildEnd {
  readonly code: number | null;
  readonly signal: string | null;
  /** What it printed on its standard output and error, in turn. */
  readonly printed: string;
}

/** Runs a bundle in a process of its own; resolves with how it ended. */
export async function runChild(
  path: string,
  args: readonly string[] = [],
  { cwd, env }: ChildOptions = {},
): Promise<ChildEnd> {
  const child = spawn(process.execPath, ['--enable-source-maps', path, ...args], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => printed.push(text));
  }
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return { code, signal, printed: printed.join('') };
}
