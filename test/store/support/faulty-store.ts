import type { Store } from '../../../src/store/index.ts';

/** How an operation fails: `before` it did anything, or `after` it was done, as when an answer is lost. */
export type FaultMoment = 'before' | 'after';

export interface FaultyStore extends Store {
  /** How many operations there were. */
  readonly operations: number;
  /** What failed, once it has. */
  readonly failed: string | undefined;
}

/** Passes everything on to `store`, but lets the `n`-th operation fail (counted from 1), once. */
export function faultyStore(store: Store, n: number, moment: FaultMoment): FaultyStore {
  let operations = 0;
  let failed: string | undefined;
  async function run<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (++operations !== n) return await work();
    failed = what;
    if (moment === 'after') await work();
    throw new Error(`injected: ${what}`);
  }
  return {
    label: store.label,
    get operations() {
      return operations;
    },
    get failed() {
      return failed;
    },
    write: (name, from, options) => run(`write ${name}`, () => store.write(name, from, options)),
    open: (name, options) =>
      run(`open ${name}`, async () => {
        const source = await store.open(name, options);
        return { ...source, readInto: (...args) => run(`read ${name}`, () => source.readInto(...args)) };
      }),
    size: (name, options) => run(`size ${name}`, () => store.size(name, options)),
    list: (prefix, options) => run(`list ${prefix}`, () => store.list(prefix, options)),
    remove: (name, options) => run(`remove ${name}`, () => store.remove(name, options)),
    stage: (options) =>
      run('stage', async () => {
        const staged = await store.stage(options);
        return {
          path: staged.path,
          publish: (name, given) => run(`publish ${name}`, () => staged.publish(name, given)),
          discard: () => run('discard', () => staged.discard()),
        };
      }),
    removeAbandoned: (options) => run('removeAbandoned', () => store.removeAbandoned(options)),
    close: () => store.close(),
    [Symbol.asyncDispose]: () => store.close(),
  };
}
