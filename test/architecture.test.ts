import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  BUFFER_CONCAT,
  checkArchitecture,
  DEFAULT_EXPORT,
  EXCEPTIONS,
  EXPORT_ALL,
  MAY_IMPORT,
  type SourceText,
} from './support/architecture.ts';

const TOP = fileURLToPath(new URL('..', import.meta.url));

async function sources(): Promise<SourceText[]> {
  const names = await readdir(`${TOP}/src`, { recursive: true });
  const paths = names.filter((name) => name.endsWith('.ts')).map((name) => `src/${name.replaceAll('\\', '/')}`);
  return Promise.all(paths.map(async (path) => ({ path, text: await readFile(`${TOP}/${path}`, 'utf8') })));
}

test('every file keeps to the layers and the rules', async () => {
  const files = await sources();
  expect(files.length).toBeGreaterThan(20);
  expect(checkArchitecture(files)).toEqual([]);
});

test('every file with a reason is there', async () => {
  const present = new Set((await sources()).map(({ path }) => path));
  expect(
    Object.keys({ ...EXCEPTIONS, ...BUFFER_CONCAT, ...DEFAULT_EXPORT, ...EXPORT_ALL }).filter(
      (path) => !present.has(path),
    ),
  ).toEqual([]);
});

test('the table of layers has no cycle', () => {
  const reached = (folder: string, path: readonly string[]): void => {
    if (path.includes(folder)) throw new Error(`cycle: ${[...path, folder].join(' -> ')}`);
    for (const below of MAY_IMPORT[folder] ?? []) reached(below, [...path, folder]);
  };
  for (const folder of Object.keys(MAY_IMPORT)) reached(folder, []);
});

describe('the checker', () => {
  const check = (path: string, text: string) => checkArchitecture([{ path, text }]);

  test.each([
    ['src/vhd/a.ts', `import { b } from './b.ts';`],
    ['src/vhd/a.ts', `import type { Disk } from '../disk/index.ts';`],
    ['src/vhd/deep/a.ts', `import { isZero } from '../../bytes/index.ts';`],
    ['src/host/open-nbd.ts', `import { connectNbd } from '../nbd-protocol/index.ts';`],
    ['src/console/a.ts', `import { startSimulator } from '../simulator/index.ts';`],
    ['src/simulator/a.ts', `import { serveNbd } from '../nbd-protocol/index.ts';`],
    ['src/core/log.ts', `import createDebug from 'debug';`],
    ['src/host/limits.ts', `import PQueue from 'p-queue';`],
    ['src/disk/a.ts', `import { open } from 'node:fs/promises';`],
    ['src/host/client.ts', `import { Xapi } from 'xen-api';\nimport { x } from 'xen-api/inner.mjs';`],
    ['src/host/xen-api.d.ts', `declare module 'xen-api' { export default function f(): void; }`],
    ['src/xva/xml.ts', `import { parseXml } from '@rgrove/parse-xml';`],
    ['src/index.ts', `export { type Disk, overlay } from './disk/index.ts';`],
    ['src/vhd/a.ts', `// import x from '../host/index.ts'\nconst text = "import y from '../host/index.ts'";`],
    ['src/vhd/a.ts', `${'\n'.repeat(398)}const lastLine = 399;\n`],
  ])('allows %s: %s', (path, text) => {
    expect(check(path, text)).toEqual([]);
  });

  test.each([
    ['src/disk/a.ts', `import { x } from '../vhd/index.ts';`, 'disk may not import vhd'],
    ['src/disk/a.ts', `import type { X } from '../vhd/index.ts';`, 'disk may not import vhd'],
    ['src/disk/a.ts', `export { x } from '../vhd/index.ts';`, 'disk may not import vhd'],
    ['src/disk/a.ts', `const x = await import('../vhd/index.ts');`, 'disk may not import vhd'],
    ['src/disk/a.ts', `type X = import('../vhd/index.ts').X;`, 'disk may not import vhd'],
    ['src/disk/a.ts', `const x = await import(name);`, 'must name what it imports'],
    ['src/core/a.ts', `import { isZero } from '../bytes/index.ts';`, 'core may not import bytes'],
    ['src/vhd/a.ts', `import { x } from '../xva/index.ts';`, 'vhd may not import xva'],
    ['src/cbt/a.ts', `import type { Host } from '../host/index.ts';`, 'cbt may not import host'],
    [
      'src/host/xapi-host.ts',
      `import { connectNbd } from '../nbd-protocol/index.ts';`,
      'host may not import nbd-protocol',
    ],
    ['src/restore/a.ts', `import { ChangedBlocks } from '../cbt/index.ts';`, 'restore may not import cbt'],
    ['src/backup/a.ts', `import { x } from '../restore/index.ts';`, 'backup may not import restore'],
    ['src/simulator/a.ts', `import { openVhd } from '../vhd/index.ts';`, 'simulator may not import vhd'],
    ['src/index.ts', `export { startRepl } from './console/index.ts';`, '(top) may not import console'],
    ['src/backup/a.ts', `import { x } from '../index.ts';`, 'backup may not import (top)'],
    ['src/vhd/a.ts', `import { overlay } from '../disk/overlay.ts';`, 'enter disk through its index.ts'],
    ['src/vhd/a.ts', `import { b } from './b';`, 'needs its .ts extension'],
    ['src/vhd/a.ts', `import { b } from './b.js';`, 'needs its .ts extension'],
    ['src/vhd/a.ts', `import { b } from '../../test/b.ts';`, 'leaves src/'],
    ['src/vhd/a.ts', `import { open } from 'fs/promises';`, `import 'node:fs/promises'`],
    ['src/vhd/a.ts', `import { z } from 'zod';`, `the package 'zod' is not allowed`],
    ['src/core/a.ts', `import createDebug from 'debug';`, `may import 'debug'`],
    ['src/backup/a.ts', `import PQueue from 'p-queue';`, `may import 'p-queue'`],
    ['src/backup/a.ts', `import { createClient } from 'xen-api';`, `may import 'xen-api'`],
    ['src/backup/a.ts', `import { x } from 'xen-api/inner.mjs';`, `may import 'xen-api'`],
    ['src/vhd/a.ts', `import { parseXml } from '@rgrove/parse-xml';`, `may import '@rgrove/parse-xml'`],
    ['src/vhd/a.ts', `import { x } from '@scope/name/inner.js';`, `the package '@scope/name' is not allowed`],
    ['src/vhd/a.ts', `export default 1;`, 'no default export'],
    ['src/vhd/a.ts', `export default function f() {}`, 'no default export'],
    ['src/vhd/a.ts', `const a = 1; export { a as default };`, 'no default export'],
    ['src/vhd/a.ts', `export { default } from './b.ts';`, 'no default export'],
    ['src/vhd/a.ts', `const all = Buffer.concat(pieces);`, 'Buffer.concat'],
    ['src/vhd/a.ts', `const all = pieces.reduce(Buffer.concat);`, 'Buffer.concat'],
    ['src/vhd/a.ts', `${'\n'.repeat(400)}const lastLine = 401;\n`, '401 lines; the limit is 400'],
    ['src/vhd/index.ts', `export * from './b.ts';`, `no 'export *'`],
    ['src/vhd/index.ts', `export const a = 1;`, 'an index.ts holds no code'],
    ['src/utils/a.ts', ``, 'has no folder "utils"'],
    ['src/utils.ts', ``, 'only index.ts lies at the top'],
  ])('refuses %s: %s', (path, text, rule) => {
    const [first, ...others] = check(path, text);
    expect(first).toContain(`${path}: `);
    expect(first).toContain(rule);
    expect(others).toEqual([]);
  });

  test('refuses a package in two files', () => {
    const text = `import PQueue from 'p-queue';`;
    const broken = checkArchitecture([
      { path: 'src/host/a.ts', text },
      { path: 'src/host/b.ts', text },
    ]);
    expect(broken).toEqual([`src/host/a.ts, src/host/b.ts: 'p-queue' may be imported in one file only`]);
  });
});
