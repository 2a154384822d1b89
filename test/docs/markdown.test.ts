import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { type Pool, startPool } from '../support/pool.ts';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const root = new URL('../../', import.meta.url);

/** The program blocks of a document, in their order. */
async function programsOf(name: string): Promise<string[]> {
  const text = await readFile(new URL(name, root), 'utf8');
  return [...text.matchAll(/^```(?:js|ts)\n(.*?)^```$/gms)].map(([, code]) => code!);
}

async function documents(): Promise<string[]> {
  const docs = (await readdir(new URL('docs/', root), { recursive: true })).filter((name) => name.endsWith('.md'));
  return ['README.md', ...docs.map((name) => `docs/${name}`)];
}

async function makeWeb({ simulator }: Pool): Promise<void> {
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }, { size: 8 * MIB }] });
  await simulator.writeDisk(vm.uuid, '0', 512, randomBytes(3 * MIB));
}

test.each(await documents())(
  'every program in %s runs, one after another in one folder',
  { timeout: 120_000 },
  async (name) => {
    const programs = await programsOf(name);
    if (name === 'README.md') expect(programs).toHaveLength(3); // or the blocks are no longer found
    if (programs.length === 0) return;
    await using dir = await makeTempDir();
    await using pool = await startPool();
    await makeWeb(pool);
    const { url, password, fingerprint256 } = pool.simulator;
    const cwd = dir.file('work');
    await mkdir(cwd);
    for (const [index, code] of programs.entries()) {
      const source = dir.file(`program-${index}.ts`);
      const bundle = dir.file(`program-${index}.mjs`);
      await writeFile(source, code);
      await bundleProgram(source, bundle);
      const env = { XEN_URL: url, XEN_PASSWORD: password, XEN_FINGERPRINT: fingerprint256 };
      const end = await runChild(bundle, [], { cwd, env });
      expect(end, code).toMatchObject({ code: 0 });
    }
  },
);

describe('docs/errors.md', () => {
  test('names every code, and no other', async () => {
    const union = await readFile(new URL('src/core/errors.ts', root), 'utf8');
    const codes = [...union.matchAll(/^ {2}\| '([A-Z_]+)'/gm)].map(([, code]) => code!).sort();
    const table = await readFile(new URL('docs/errors.md', root), 'utf8');
    const named = [...table.matchAll(/^\| `([A-Z_]+[A-Z])` +\|/gm)].map(([, code]) => code!).sort();
    expect(codes.length).toBeGreaterThan(20);
    expect(named).toEqual(codes);
    const families = [...union.matchAll(/'([A-Z]+)'(?= \||\}_)/g)].map(([, family]) => `${family}_`).sort();
    const prefixes = [...table.matchAll(/^\| `([A-Z]+_)` +\|/gm)].map(([, prefix]) => prefix!).sort();
    expect(prefixes).toEqual(families);
  });
});

test('docs/preparing-hosts.md names every finding, and no other', async () => {
  const union = await readFile(new URL('src/preflight/finding.ts', root), 'utf8');
  const ids = [...union.matchAll(/^ {2}\| '([a-z.-]+)'/gm)].map(([, id]) => id!).sort();
  const table = await readFile(new URL('docs/preparing-hosts.md', root), 'utf8');
  const named = [...table.matchAll(/^\| `([a-z]+\.[a-z-]+)` +\|/gm)].map(([, id]) => id!).sort();
  expect(ids.length).toBeGreaterThan(20);
  expect(named).toEqual(ids);
});

test('docs/testing.md names every fault, and no other', async () => {
  const source = await readFile(new URL('src/simulator/faults.ts', root), 'utf8');
  const options = source.slice(source.indexOf('interface FaultOptions'), source.indexOf('/** The name of a fault'));
  const names = [...options.matchAll(/^ {2}'?([a-z\d-]+)'?: (?:\{|Record)/gm)].map(([, name]) => name!).sort();
  const table = await readFile(new URL('docs/testing.md', root), 'utf8');
  const named = [...table.slice(table.indexOf('## What can go wrong')).matchAll(/^\| `([a-z\d-]+)` +\|/gm)];
  expect(names.length).toBeGreaterThan(10);
  expect(named.map(([, name]) => name!)).toEqual(names);
});

test('every relative link in a document leads somewhere', async () => {
  for (const name of await documents()) {
    const text = await readFile(new URL(name, root), 'utf8');
    for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      const target = new URL(link!, new URL(name, root));
      await expect(
        readdir(target).catch(() => readFile(target)),
        `${name}: ${link}`,
      ).resolves.toBeDefined();
    }
  }
});
