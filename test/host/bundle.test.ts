import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { bundleXenApi } from '../../scripts/bundle-xen-api.ts';
import { bundledFolders } from '../../scripts/licenses.ts';
import { tempDir } from '../support/temp-dir.ts';

const root = join(import.meta.dirname, '../..');

/** What `xen-api` would send bytes with, log with, or bring under a licence that we cannot ship. */
const UNWANTED = [
  'xo-collection',
  'xo-common',
  'undici',
  'http-request-plus',
  'proxy-agent',
  'json-rpc-protocol',
  '@vates/json-hash',
  '@xen-orchestra/log',
];

test('the bundled xen-api brings nothing that it must not, and loads as a module of Node', async () => {
  const outdir = await tempDir();
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/host/xapi-client.ts'],
    bundle: true,
    external: ['debug'],
    format: 'esm',
    outdir,
    outExtension: { '.js': '.mjs' },
    platform: 'node',
    target: 'node22',
    metafile: true,
    plugins: [bundleXenApi()],
    logLevel: 'error',
  });
  const names = bundledFolders(metafile).map((folder) => folder.replace(/^.*node_modules\//, ''));
  expect(names).toContain('xen-api');
  for (const name of UNWANTED) expect(names).not.toContain(name);
  expect(Object.keys(metafile.inputs).filter((input) => input.includes('xen-api/transports'))).toEqual([]);

  const imports = Object.values(metafile.outputs).flatMap((output) => output.imports.map(({ path }) => path));
  // No module of Node that opens connections; `dns` is imported for a feature that we do not switch on.
  expect([...new Set(imports)].filter((path) => /^(?:node:)?(?:http|https|http2|net|tls|dgram)$/.test(path))).toEqual(
    [],
  );

  // With `debug` left out there is nothing to resolve beside the file: stand in for it.
  const output = Object.keys(metafile.outputs).find((path) => path.endsWith('.mjs'))!;
  const { readFile, writeFile } = await import('node:fs/promises');
  const path = join(root, output);
  const code = await readFile(path, 'utf8');
  await writeFile(path, code.replace(/from\s*"debug"/g, `from ${JSON.stringify(import.meta.resolve('debug'))}`));
  const { parseTaskResult } = (await import(pathToFileURL(path).href)) as {
    parseTaskResult: (text: string) => Promise<unknown>;
  };
  expect(await parseTaskResult('<value>OpaqueRef:1</value>')).toBe('OpaqueRef:1');
});
