import { build } from 'esbuild';

/**
 * Bundles a job into one JavaScript file, as the library is shipped: running the sources would measure how fast types
 * are taken out of them, and cost tens of MiB.
 */
export async function bundleJob(name: string, folder: string): Promise<string> {
  const outfile = `${folder}/${name}.mjs`;
  await bundle(`./${name}.ts`, outfile);
  await bundle('../src/xva/check-thread.ts', `${folder}/xva-check-thread.js`); // started by its name, as in the package
  return outfile;
}

async function bundle(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [new URL(entry, import.meta.url).pathname],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    // What is bundled of CommonJS packages asks for it.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
}
