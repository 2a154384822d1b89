import { expect } from 'vitest';
import { sourceChunks } from '../../../src/bytes/index.ts';
import { memoryStore, openRepository, type Store } from '../../../src/store/index.ts';
import { contents, longChain, names } from './chains.ts';
import { type FaultMoment, faultyStore } from './faulty-store.ts';
import { idOf } from './points.ts';

/** Of a chain without end the last two stay, and the older one becomes a full. */
export const MERGE = { keepLast: 2, merge: true } as const;

export interface MergeFaults {
  /** How many operations of the store a prune that merges takes. */
  readonly operations: number;
  /** Lets one of them fail (counted from 1): every point must be right, and the next prune must end it. */
  expectNoHarm(n: number, moment: FaultMoment): Promise<void>;
}

/** A prune that merges, always from the same repository. */
export async function mergeFaults(): Promise<MergeFaults> {
  const made = await longChain();
  const { points } = made;
  const before = await contents(made.repository, points);
  const plan = await made.repository.planPrune(MERGE);
  const prune = async (store: Store) => (await openRepository(store)).prune(plan);

  const whole = faultyStore(await copyOf(made.store), Number.POSITIVE_INFINITY, 'before');
  await prune(whole);
  expect(whole.operations).toBeGreaterThan(15);

  return {
    operations: whole.operations,
    async expectNoHarm(n, moment) {
      const store = await copyOf(made.store);
      const faulty = faultyStore(store, n, moment);
      await prune(faulty).catch((error: unknown) => expect(String(error)).toContain('injected'));
      expect(faulty.failed).toBeDefined();
      const what = `operation ${n}: ${faulty.failed}`;
      const repository = await openRepository(store);
      const left = names(await repository.list());
      expect(left, what).toEqual(expect.arrayContaining(names(points.slice(3))));
      const still = points.map((point, i) => ({ point: point.point, i })).filter(({ point }) => left.includes(point));
      expect(await contents(repository, still), what).toEqual(still.map(({ i }) => before[i]));
      expect((await repository.verify('all', { level: 'content' })).ok, what).toBe(true);
      await repository.prune(await repository.planPrune(MERGE));
      expect(await contents(repository, points.slice(3)), what).toEqual(before.slice(3));
      expect(names(await repository.list()), what).toEqual(names(points.slice(3)));
      expect((await repository.get(idOf(points[3]!))).merging, what).toBeUndefined();
    },
  };
}

async function copyOf(store: Store): Promise<Store> {
  const copy = memoryStore();
  for (const name of (await store.list('')).names) {
    await using source = await store.open(name);
    await copy.write(name, { length: source.size, chunks: sourceChunks(source) });
  }
  return copy;
}
