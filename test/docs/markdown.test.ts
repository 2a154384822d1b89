import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { directoryStore, openRepository } from '../../src/store/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { anchorsOf, blocksOf, documents, proseOf, readDocument } from './support/documents.ts';
import { runBlocks } from './support/run-blocks.ts';

const MIB = 1024 * 1024;
const root = new URL('../../', import.meta.url);

/** Documents whose readers have backups already, in `./backups`. */
const WITH_BACKUPS: readonly string[] = ['docs/instant-access.md', 'docs/restoring.md', 'docs/verifying.md'];

/** Kinds of blocks that are run elsewhere: by format.test.ts, by repl.test.ts, and by `.ci/run` itself. */
const ELSEWHERE: Readonly<Record<string, readonly string[]>> = {
  'docs/format.md': ['sh'],
  'docs/repl.md': ['sh', 'console'],
  'README.md': ['sh'],
  'CONTRIBUTING.md': ['sh'],
};

/** Programs in shell commands that not every machine has. */
const TOOLS = ['nbdcopy', 'nbdinfo', 'qemu-img', 'qemu-io', 'qemu-nbd'];

async function makeWeb({ simulator }: Pool): Promise<string> {
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }, { size: 8 * MIB }] });
  await simulator.writeDisk(vm.uuid, '0', 512, randomBytes(3 * MIB));
  return vm.uuid;
}

/** A full and an increment. */
async function makeBackups({ host, simulator }: Pool, vm: string, folder: string): Promise<void> {
  const repository = await openRepository(await directoryStore(folder));
  await backupVm(host, repository, { vm });
  await simulator.writeDisk(vm, '0', 2 * MIB, randomBytes(MIB));
  await backupVm(host, repository, { vm });
}

describe.each(await documents())('%s', async (name) => {
  const all = await blocksOf(name);
  const blocks = all.filter(({ kind }) => ELSEWHERE[name]?.includes(kind) !== true);
  const needed = TOOLS.filter((tool) => blocks.some(({ kind, code }) => kind === 'sh' && code.includes(tool)));

  const canRun = needed.map((tool) => hasTool(tool)).every(Boolean);
  const testBlocks = blocks.length === 0 ? undefined : test.runIf(canRun);
  testBlocks?.('every block runs, one after another in one folder', { timeout: 120_000 }, async () => {
    await using dir = await makeTempDir();
    await using pool = await startPool();
    const vm = await makeWeb(pool);
    const cwd = dir.file('work');
    await mkdir(cwd);
    if (WITH_BACKUPS.includes(name)) await makeBackups(pool, vm, dir.file('work/backups'));
    const { url, password, fingerprint256 } = pool.simulator;
    const env = { XEN_URL: url, XEN_PASSWORD: password, XEN_FINGERPRINT: fingerprint256 };
    await runBlocks(blocks, { programs: dir.path, cwd, env });
  });

  test('every relative link leads to a file, and to a heading in it', async () => {
    const links = [...(await proseOf(name)).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)];
    for (const [link, path, anchor] of links) {
      const target = new URL(path === '' ? name : path!, path === '' ? root : new URL(name, root));
      const text = await readFile(target, 'utf8'); // rejects for a folder: no page of a package shows one
      if (anchor !== undefined) expect([...anchorsOf(text)], link).toContain(anchor);
    }
  });
});

test('blocks and links are found', async () => {
  expect(await blocksOf('README.md')).toHaveLength(4);
  const guides = (await documents()).filter((name) => /^docs\/[a-z-]+\.md$/.test(name));
  expect(guides.length).toBeGreaterThan(12);
  const index = await readDocument('docs/README.md');
  for (const name of guides) expect(index).toContain(`](${name.replace('docs/', '')})`);
  expect([...anchorsOf('# A `b`, c_d: e!\n## Pools of several hosts, NAT')]).toEqual([
    'a-b-c_d-e',
    'pools-of-several-hosts-nat',
  ]);
});

/** They run the tests themselves, and cannot be run by one. */
test('commands for a clone name scripts that there are', async () => {
  const { scripts } = JSON.parse(await readFile(new URL('package.json', root), 'utf8')) as { scripts: object };
  const known = new Set(['npm ci', 'npm pack', 'npm test', 'bash .ci/run']);
  for (const name of Object.keys(scripts)) known.add(`npm run ${name}`);
  for (const document of ['README.md', 'CONTRIBUTING.md']) {
    const lines = (await blocksOf(document))
      .filter(({ kind }) => kind === 'sh')
      .flatMap(({ code }) => code.split('\n'));
    const commands = lines.flatMap((line) => line.replace(/ #.*| -- .*/, '').split(' && ')).filter(Boolean);
    expect(commands.length).toBeGreaterThan(2);
    expect(commands.map((command) => command.trim()).filter((command) => !known.has(command))).toEqual([]);
  }
});

test('docs/preparing-hosts.md names every finding, and no other', async () => {
  const union = await readFile(new URL('src/preflight/finding.ts', root), 'utf8');
  const ids = [...union.matchAll(/^ {2}\| '([a-z.-]+)'/gm)].map(([, id]) => id!).sort();
  const table = await readFile(new URL('docs/preparing-hosts.md', root), 'utf8');
  const named = [...table.matchAll(/^\| `([a-z]+\.[a-z-]+)` +\|/gm)].map(([, id]) => id!).sort();
  expect(ids.length).toBeGreaterThan(20);
  expect(named).toEqual(ids);
});

test('docs/embedding.md names every event and its members, every stage of a restore, every slow side, and no other', async () => {
  const guide = await readFile(new URL('docs/embedding.md', root), 'utf8');
  const rows = (heading: string) => {
    const section = guide.slice(guide.indexOf(`\n## ${heading}\n`) + 1).split('\n## ')[0]!;
    return [...section.matchAll(/^\| `([a-z-]+)` +\|(.*)\|$/gm)].map(([, name, rest]) => ({
      name: name!,
      members: [
        ...rest!
          .split('|')
          .at(-1)!
          .matchAll(/`(\w+)`/g),
      ].map(([, member]) => member!),
    }));
  };

  const progress = await readFile(new URL('src/core/progress.ts', root), 'utf8');
  const events = [...progress.matchAll(/readonly kind: '([a-z-]+)';(.*?)^ {4}\}/gms)].map(([, name, members]) => ({
    name: name!,
    members: [...members!.matchAll(/readonly (\w+)\??:/g)]
      .map(([, member]) => member!)
      .filter((member) => member !== 'run'),
  }));
  expect(events.length).toBeGreaterThan(5);
  expect(rows('Progress')).toEqual(events);

  const report = await readFile(new URL('src/core/report.ts', root), 'utf8');
  const sides = report.match(/type SlowSide = (.*);/)![1]!.split(' | ');
  expect(rows('Reports').map(({ name }) => `'${name}'`)).toEqual(sides);

  const runner = await readFile(new URL('src/restore/run-restore.ts', root), 'utf8');
  const stages = [...new Set([...runner.matchAll(/\.stage\('([a-z-]+)'\)/g)].map(([, stage]) => stage!))];
  const named = guide.match(/of a restore:((?:\s`[a-z-]+`[,.])+)/)![1]!.match(/[a-z-]+/g)!;
  expect(stages.length).toBeGreaterThan(2);
  expect([...named].sort()).toEqual(stages.sort());
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
