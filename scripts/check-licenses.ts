/**
 * Fails on a licence that must not be shipped, in the production tree or in the bundle, and on a `NOTICE` that does not
 * name what is bundled. Run after the build: `node scripts/check-licenses.ts`, with `--write` to renew `NOTICE`.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { terms } from './license-terms.ts';
import {
  bundledFolders,
  copyrightLines,
  faults,
  formatNotice,
  type Lockfile,
  type Package,
  productionFolders,
} from './licenses.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Written by tsup, see `tsup.config.ts`. */
const METAFILE = 'dist/metafile-esm.json';

const readJson = (path: string): unknown => JSON.parse(readFileSync(join(root, path), 'utf8'));

function readPackage(folder: string): Package {
  const { name, version, license, licenses, author } = readJson(join(folder, 'package.json')) as {
    readonly name: string;
    readonly version: string;
    readonly license?: string | { readonly type: string };
    readonly licenses?: readonly { readonly type: string }[];
    readonly author?: string | { readonly name: string };
  };
  const named = typeof license === 'object' ? license.type : license;
  const by = typeof author === 'object' ? author.name : author;
  const files = readdirSync(join(root, folder)).filter((file) => /^(?:licen[cs]e|copying)/i.test(file));
  const lines = files.flatMap((file) => copyrightLines(readFileSync(join(root, folder, file), 'utf8')));
  const copyright = lines.length > 0 ? lines : [`Copyright ${by ?? `the authors of ${name}`} (from its package.json)`];
  return { name, version, license: named ?? licenses?.map(({ type }) => type).join(' OR ') ?? '', copyright };
}

function main(): number {
  if (!existsSync(join(root, METAFILE))) {
    console.error(`${METAFILE} is missing: build first`);
    return 2;
  }
  const production = productionFolders(readJson('package-lock.json') as Lockfile).map(readPackage);
  const bundled = bundledFolders(readJson(METAFILE) as { inputs: Record<string, unknown> }).map(readPackage);
  console.log(`in the production tree: ${production.map(({ name, version }) => `${name} ${version}`).join(', ')}`);
  console.log('in the bundle:');
  for (const { name, version, license } of bundled) console.log(`  ${name} ${version} (${license})`);

  const found = [...faults(production, 'production tree'), ...faults(bundled, 'bundle')];
  const notice = formatNotice(bundled, terms);
  if (process.argv.includes('--write')) {
    writeFileSync(join(root, 'NOTICE'), notice);
  } else if (!existsSync(join(root, 'NOTICE')) || readFileSync(join(root, 'NOTICE'), 'utf8') !== notice) {
    found.push('NOTICE does not name what is bundled: run this with --write, and read the difference');
  }
  for (const fault of found) console.error(fault);
  return found.length === 0 ? 0 : 1;
}

process.exitCode = main();
