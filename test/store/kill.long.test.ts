import { cp, mkdir, readdir, rm, utimes } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import type { Repository } from '../../src/store/index.ts';
import { randomFrom, testSeed } from '../support/random.ts';
import { type ChildEnd, runChild } from '../support/run-child.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';
import { diskAt, makePoints, type Operation, openFor, operations } from './support/kill-operations.ts';
import { idOf, VDI, VM } from './support/points.ts';

/** So many states are looked at at a time: while one process runs, what another has left is checked. */
const AT_ONCE = 2;
/** How many times of each operation the process that goes on is killed, too. */
const KILLED_TWICE = 6;
const seed = testSeed();

let bundleDir: TempDir;
let bundle: string;
beforeAll(async () => {
  bundleDir = await makeTempDir();
  bundle = bundleDir.file('killed-operation.cjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'support', 'killed-operation.ts')],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node22',
    logLevel: 'error',
  });
});
afterAll(() => bundleDir[Symbol.asyncDispose]());

/** An operation and what it starts from. */
interface Setting {
  readonly name: string;
  readonly operation: Operation;
  readonly dir: TempDir;
  /** The points there are before. */
  readonly before: readonly string[];
  /** The points of the repository that is only read. */
  readonly source: readonly string[];
}

async function prepare(name: string, operation: Operation, dir: TempDir): Promise<Setting> {
  const pointsIn = async (folder: string, kinds: Operation['before']) => {
    await mkdir(folder);
    if (kinds.length === 0) return [];
    await makePoints(operation, folder, kinds);
    return pointsOf(await openFor(operation, folder));
  };
  const before = await pointsIn(dir.file('before'), operation.before);
  const source = await pointsIn(dir.file('source'), operation.source ?? []);
  return { name, operation, dir, before, source };
}

const pointsOf = async (repository: Repository) => (await repository.list()).map(({ point }) => point);

/** Runs the operation in a process that dies at the `n`-th step. */
function runUpTo({ name, dir }: Setting, folder: string, n: number): Promise<ChildEnd> {
  return runChild(bundle, [name, folder, dir.file('source'), String(n)]);
}

/** Lets the operation be killed at each of `kills` one after the other, then looks at what is left, and ends it. */
async function expectNoHarm(setting: Setting, kills: readonly number[]): Promise<void> {
  const { operation, dir, before, source } = setting;
  const { stays, adds } = operation;
  const folder = dir.file(`killed-at-${kills.join('-')}`);
  await cp(dir.file('before'), folder, { recursive: true });
  const told: string[] = [];
  for (const [times, n] of kills.entries()) {
    const end = await runUpTo(setting, folder, n);
    if (operation.linkless === true) await ageClaims(folder);
    const endedItself = times > 0 && end.code === 0; // when there was not much left to do
    if (!endedItself) expect(end.signal, end.printed).toBe('SIGKILL');
    told.push(...[...end.printed.matchAll(/^told (.*)$/gm)].map(([, point]) => point!));
  }

  const repository = await openFor(operation, folder);
  const left = await pointsOf(repository);
  expect(left).toEqual(expect.arrayContaining([...stays.map((index) => before[index]), ...told]));
  const own = left.filter((point) => !before.includes(point) && !source.includes(point));
  expect(own.length).toBeLessThanOrEqual(adds * kills.length);
  expect((await repository.inspectLease(VM))?.state ?? 'abandoned').toBe('abandoned');
  await expectEveryPointRight(repository);

  const from = source.length === 0 ? repository : await openFor(operation, dir.file('source'));
  await operation.run(repository, from, () => {});
  await repository.prune(await repository.planPrune({ keepLast: 1000 })); // what a killed backup leaves goes with any
  await (await repository.acquireLease(VM)).release(); // a prune that finds nothing to do leaves an abandoned one alone
  const now = await pointsOf(repository);
  const there = adds > 0 ? left : source.length > 0 ? source : stays.map((index) => before[index]);
  expect(now).toEqual(expect.arrayContaining([...there]));
  expect(now).toHaveLength(there.length + adds);
  await expectEveryPointRight(repository);
  await expectNothingElse(repository, folder);
  await rm(folder, { recursive: true });
}

/** Where there are no hard links a name is claimed before it is given; a claim is taken from the dead when it is a minute old. */
async function ageClaims(folder: string): Promise<void> {
  const anHourAgo = new Date(Date.now() - 3600_000);
  for (const name of await readdir(folder, { recursive: true })) {
    if (name.startsWith(join('.tmp', 'claim-'))) await utimes(join(folder, name), anHourAgo, anHourAgo);
  }
}

/** Is everything that is listed what was backed up, to the byte? */
async function expectEveryPointRight(repository: Repository): Promise<void> {
  const { ok, points } = await repository.verify('all', { level: 'content' });
  expect(points.filter(({ restorable }) => !restorable)).toEqual([]);
  expect(ok).toBe(true);
  for (const { vmUuid, point } of points) {
    const manifest = await repository.get({ vmUuid, point });
    await using disk = await repository.openDisk(idOf(manifest), VDI);
    expect(Buffer.compare(await readBytes(disk, 0, disk.size), diskAt(manifest)), point).toBe(0);
  }
}

/** Is there no file but those that a manifest names? */
async function expectNothingElse(repository: Repository, folder: string): Promise<void> {
  await repository.store.removeAbandoned({ olderThanMs: -1000 });
  const files: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isDirectory()) files.push(relative(folder, join(entry.parentPath, entry.name)));
  }
  const expected = ['repository.json'];
  for (const id of await repository.list()) {
    const { point, files: named } = await repository.get(id);
    expected.push(`vms/${VM}/points/${point}.json`, ...named.map(({ name }) => `vms/${VM}/${name}`));
  }
  expect(files.sort()).toEqual(expected.sort());
}

/** Does the work for each of `items`, some at a time; the first failure ends it. */
async function forEachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const open = items.values();
  const worker = async () => {
    for (const item of open) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

describe(`killed at any step (TEST_SEED=${seed}):`, () => {
  test.each(Object.entries(operations))('%s', async (name, operation) => {
    await using dir = await makeTempDir();
    const setting = await prepare(name, operation, dir);
    const folder = dir.file('whole');
    await cp(dir.file('before'), folder, { recursive: true });
    const whole = await runUpTo(setting, folder, Number.POSITIVE_INFINITY);
    expect(whole.code, whole.printed).toBe(0);
    const { steps, unseen } = JSON.parse(whole.printed.split('\n').at(-1)!) as { steps: string[]; unseen: number };
    expect(unseen).toBe(0);
    expect(steps.map((step) => /^(idle \w+|half a write|\w+)/.exec(step)?.[0])).toEqual(
      expect.arrayContaining([...operation.does]),
    );

    // Killed before an idle step it leaves what it leaves before the next one.
    const everyStep = [...steps.keys()].filter((n) => !steps[n]!.startsWith('idle ')).map((n) => [n + 1]);
    expect(everyStep.length).toBeGreaterThanOrEqual(operation.steps);
    const random = randomFrom(seed);
    const anyOf = (count: number) => 1 + Math.floor(random() * count);
    const twice = Array.from({ length: KILLED_TWICE }, () => [anyOf(steps.length), anyOf(steps.length)]);
    await forEachOf([...everyStep, ...twice], async (kills) => {
      try {
        await expectNoHarm(setting, kills);
      } catch (error) {
        const where = kills.map((n) => `${n} (${steps[n - 1]})`).join(', then at ');
        throw new Error(`killed at step ${where}`, { cause: error });
      }
    });
  });
});
