import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

const root = new URL('../../', import.meta.url);

test('the API reference is made of every path of the package', async () => {
  const config = await readFile(new URL('typedoc.jsonc', root), 'utf8');
  const { entryPoints } = JSON.parse(config.replace(/^ *\/\/.*$/gm, '')) as { entryPoints: string[] };
  const { exports } = JSON.parse(await readFile(new URL('package.json', root), 'utf8')) as { exports: object };
  const folders = Object.keys(exports)
    .filter((path) => path !== './package.json')
    .map((path) => (path === './nbd' ? './nbd-protocol' : path).replace(/^\.\/?/, ''));
  const sources = folders.map((folder) => (folder === '' ? 'src/index.ts' : `src/${folder}/index.ts`));
  expect([...entryPoints].sort()).toEqual(sources.sort());
  for (const source of sources) {
    const text = await readFile(new URL(source, root), 'utf8');
    expect(text, source).toMatch(/^\/\*\*\n \* \S.*?\n \* @module xen-backup-sdk/s);
  }
});
