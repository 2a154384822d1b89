import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import {
  copyPoint,
  directoryStore,
  type Manifest,
  memoryStore,
  openRepository,
  type Repository,
} from '../../src/store/index.ts';
import { type ManualClock, manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { randomFrom } from '../support/random.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { contentOf, idOf, MIB, VM, writeDelta, writeFull } from './support/points.ts';
import { recordFolder } from './support/power-loss.ts';

const DAY = 24 * 3600_000;
/** Of the states of one moment. */
const MOST = 4;
// In CI always the same, so that a change is not blamed for what it did not do; elsewhere each run looks at others.
const fallback = process.env['CI'] === 'true' ? 4711 : randomBytes(4).readUInt32BE();
const seed = Number(process.env['TEST_SEED'] ?? fallback);

interface Action {
  /** What is there before, all of it told. */
  readonly before: readonly ('full' | 'incr')[];
  /** The work that the power cut interrupts; it tells what is done. */
  run(
    repository: Repository,
    points: readonly Manifest[],
    tell: (what: string) => void,
    clock: ManualClock,
  ): Promise<void>;
  /** The points that must be there, in their order, given what was told. */
  mustHave(points: readonly Manifest[], told: readonly string[]): readonly string[];
  /** Ends the work in a later process, from whatever the power cut left. */
  goOn(repository: Repository, points: readonly Manifest[], clock: ManualClock): Promise<void>;
  /** How many points there are when it is ended. */
  readonly inTheEnd: number;
}

async function addPoint(repository: Repository, type: 'full' | 'incr', clock: ManualClock, base?: Manifest) {
  await clock.advance(DAY);
  const createdAt = new Date(clock.now()).toISOString();
  await using writer = await repository.begin(VM, type);
  await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{"vm":{}}'));
  const bytes = patterned(MIB, clock.now() % 1000);
  const disk = type === 'full' ? await writeFull(writer, bytes) : await writeDelta(writer, base!, bytes);
  return await writer.commit(contentOf(writer, { disks: [disk], base: base?.point, createdAt }), { digestDisks: true });
}

const names = (points: readonly Manifest[]) => points.map(({ point }) => point);
const MERGE = { keepLast: 2, merge: true } as const;

const actions: Record<string, Action> = {
  'a first full and an increment': {
    before: [],
    async run(repository, _, tell, clock) {
      const full = await addPoint(repository, 'full', clock);
      tell(full.point);
      tell((await addPoint(repository, 'incr', clock, full)).point);
    },
    mustHave: (_, told) => told,
    goOn: async (repository, _, clock) => {
      const points = await repository.list();
      const base = points.at(-1) && (await repository.get(points.at(-1)!));
      await addPoint(repository, base === undefined ? 'full' : 'incr', clock, base);
    },
    inTheEnd: Number.NaN,
  },
  'an increment on a chain': {
    before: ['full', 'incr'],
    async run(repository, points, tell, clock) {
      tell((await addPoint(repository, 'incr', clock, points.at(-1))).point);
    },
    mustHave: (points, told) => [...names(points), ...told.slice(points.length)],
    goOn: async (repository, points, clock) => {
      await addPoint(repository, 'incr', clock, points.at(-1));
    },
    inTheEnd: Number.NaN,
  },
  'a removal of the last point': {
    before: ['full', 'incr', 'incr'],
    async run(repository, points, tell) {
      await repository.remove(idOf(points.at(-1)!));
      tell('removed');
    },
    mustHave: (points) => names(points.slice(0, -1)),
    goOn: async (repository, points) => {
      const last = idOf(points.at(-1)!);
      await repository.remove(last).catch((error: { code?: string }) => expect(error.code).toBe('NOT_FOUND'));
    },
    inTheEnd: 2,
  },
  'a prune of a whole chain': {
    before: ['full', 'incr', 'incr', 'full', 'incr'],
    async run(repository) {
      await repository.prune(await repository.planPrune({ keepLast: 2 }));
    },
    mustHave: (points) => names(points.slice(3)),
    goOn: async (repository) => {
      await repository.prune(await repository.planPrune({ keepLast: 2 }));
    },
    inTheEnd: 2,
  },
  'a merge of the head of a chain': {
    before: ['full', 'incr', 'incr', 'incr'],
    async run(repository) {
      await repository.prune(await repository.planPrune(MERGE));
    },
    mustHave: (points) => names(points.slice(2)),
    goOn: async (repository) => {
      await repository.prune(await repository.planPrune(MERGE));
    },
    inTheEnd: 2,
  },
};

describe(`power loss at any moment (TEST_SEED=${seed}) of`, () => {
  test.each(Object.entries(actions))('%s', { timeout: 120_000 }, async (_, action) => {
    await using dir = await makeTempDir();
    const root = dir.file('repository');
    await mkdir(dir.file('contents'));
    const recorder = recordFolder(root, dir.file('contents'));
    const clock = manualClock();
    const repository = await openRepository(await directoryStore(root, { fs: recorder.fs }), { clock });
    const points: Manifest[] = [];
    for (const type of action.before) {
      points.push(await addPoint(repository, type, clock, type === 'incr' ? points.at(-1) : undefined));
      recorder.tell(points.at(-1)!.point);
    }
    const from = action.before.length === 0 ? 0 : recorder.steps;
    await action.run(repository, points, recorder.tell, clock);

    let count = 0;
    for (const { label, told, build } of recorder.states(from, MOST, randomFrom(seed))) {
      const folder = dir.file(`state-${count++}`);
      build(folder);
      const about = () => `${label}\n${recorder.describe().join('\n')}`;
      await using store = await directoryStore(folder);
      const after = await openRepository(store, { clock });
      const listed = (await after.list()).map(({ point }) => point);
      expect(listed, about()).toEqual(expect.arrayContaining([...action.mustHave(points, told)]));
      const report = await after.verify('all', { level: 'content' });
      expect(
        report.points.filter(({ restorable }) => !restorable),
        about(),
      ).toEqual([]);

      await action.goOn(after, points, clock);
      const end = await after.verify('all', { level: 'content' });
      expect(end.ok, about()).toBe(true);
      if (!Number.isNaN(action.inTheEnd)) {
        expect(end.points, about()).toHaveLength(action.inTheEnd);
        expect(end.orphans, about()).toEqual([]);
      } else expect(end.points.length, about()).toBe(listed.length + 1);
    }
    expect(count).toBeGreaterThan(20);
  });

  test('a copy of a chain', { timeout: 120_000 }, async () => {
    await using dir = await makeTempDir();
    await mkdir(dir.file('contents'));
    const clock = manualClock();
    const source = await openRepository(memoryStore(), { clock });
    const full = await addPoint(source, 'full', clock);
    const incr = await addPoint(source, 'incr', clock, full);
    const recorder = recordFolder(dir.file('repository'), dir.file('contents'));
    const target = await openRepository(await directoryStore(dir.file('repository'), { fs: recorder.fs }), { clock });
    await copyPoint(source, target, idOf(incr));
    recorder.tell('copied');

    let count = 0;
    for (const { label, told, build } of recorder.states(0, MOST, randomFrom(seed))) {
      const folder = dir.file(`state-${count++}`);
      build(folder);
      const about = () => `${label}\n${recorder.describe().join('\n')}`;
      await using store = await directoryStore(folder);
      const after = await openRepository(store, { clock });
      if (told.includes('copied')) expect(await after.list(), about()).toHaveLength(2);
      expect((await after.verify('all', { level: 'content' })).ok, about()).toBe(true);
      await copyPoint(source, after, idOf(incr));
      expect((await after.list()).map(({ point }) => point)).toEqual(names([full, incr]));
      expect(await after.verify('all', { level: 'content' }), about()).toMatchObject({ ok: true, orphans: [] });
    }
    expect(count).toBeGreaterThan(20);
  });
});
