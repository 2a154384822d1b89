import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { bundleXenApi } from '../../scripts/bundle-xen-api.ts';

/**
 * Bundles a program of `test/support` as the package is bundled, for a process of its own.
 *
 * @returns the path of the bundle, in `dir`.
 */
export async function bundleChild(name: string, dir: string): Promise<string> {
  const outfile = `${dir}/${name}.mjs`;
  await build({
    entryPoints: [fileURLToPath(new URL(`${name}.ts`, import.meta.url))],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    plugins: [bundleXenApi()],
    logLevel: 'error',
  });
  return outfile;
}

/** Runs a bundle with one argument; resolves with how it ended. */
export async function runChild(
  path: string,
  argument: unknown,
): Promise<{ code: number | null; signal: string | null }> {
  const child = spawn(process.execPath, [path, JSON.stringify(argument)], { stdio: ['ignore', 'inherit', 'inherit'] });
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return { code, signal };
}
