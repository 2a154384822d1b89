import { Worker } from 'node:worker_threads';
import { createLog } from '../core/index.ts';

const log = createLog('store');

/** Files that are asked for at a time, of at most a few KiB each. */
const BATCH = 512;
/** Batches that are asked for before the first is taken. */
const AHEAD = 2;

/**
 * Reads files of another thread: there the plain calls that wait do in a tenth of the time what takes four turns of the
 * thread pool for each file here, and who waits is nobody but that thread. Says nothing of a file that is not plain or not to
 * be had: who wants to know why reads it the usual way.
 */
const READER = `
const { parentPort } = require('node:worker_threads');
const { closeSync, fstatSync, openSync, readSync } = require('node:fs');
function readWhole(path, flags, longest) {
  let file;
  try {
    file = openSync(path, flags);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > longest) return undefined;
    const bytes = new Uint8Array(stat.size);
    return readSync(file, bytes, 0, stat.size, 0) === stat.size ? bytes : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
parentPort.on('message', ({ paths, flags, longest }) => {
  const files = paths.map((path) => readWhole(path, flags, longest));
  const lengths = Int32Array.from(files, (file) => (file === undefined ? -1 : file.byteLength));
  const bytes = new Uint8Array(files.reduce((sum, file) => sum + (file === undefined ? 0 : file.byteLength), 0));
  let at = 0;
  for (const file of files) {
    if (file === undefined) continue;
    bytes.set(file, at);
    at += file.byteLength;
  }
  parentPort.postMessage({ lengths, bytes }, [lengths.buffer, bytes.buffer]);
});
`;

interface Answer {
  /** Of each file, in bytes; -1 for one of which nothing is said. */
  readonly lengths: Int32Array;
  /** Of all files, one behind the other. */
  readonly bytes: Uint8Array;
}

/**
 * The whole of each of many small files, in their order; `undefined` for one that is longer than `longest` bytes, no plain file,
 * or not to be had. Reading goes on while the caller works on what it has; memory: about a thousand files.
 *
 * @param flags - as of `open`.
 */
export async function* readManyFiles(
  paths: readonly string[],
  flags: number,
  longest: number,
): AsyncGenerator<Uint8Array | undefined, void> {
  const reader = startReader();
  const asked: Promise<Answer | undefined>[] = [];
  let next = 0;
  try {
    for (let from = 0; from < paths.length; from += BATCH) {
      for (; asked.length < AHEAD && next < paths.length; next += BATCH) {
        asked.push(reader.ask({ paths: paths.slice(next, next + BATCH), flags, longest }));
      }
      yield* cut(await asked.shift(), Math.min(BATCH, paths.length - from));
    }
  } finally {
    await reader.stop();
  }
}

interface Reader {
  /** Answers come in the order of the questions; `undefined` where there is no thread, or no longer. */
  ask(question: { paths: readonly string[]; flags: number; longest: number }): Promise<Answer | undefined>;
  stop(): Promise<void>;
}

function startReader(): Reader {
  let worker: Worker;
  try {
    worker = new Worker(READER, { eval: true, execArgv: [] }); // with --input-type=module it would have no `require`
  } catch (error) {
    log.debug('no thread for reading', { error }); // Node's permission model, for one: the caller has another way
    return { ask: async () => undefined, stop: async () => {} };
  }
  const waiting: ((answer?: Answer) => void)[] = [];
  let isGone = false;
  worker
    .on('message', (answer: Answer) => waiting.shift()?.(answer))
    .on('error', (error) => log.debug('the thread for reading failed', { error })) // it exits then
    .on('exit', () => {
      isGone = true;
      for (const resolve of waiting.splice(0)) resolve();
    });
  return {
    ask(question) {
      const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
      if (isGone) return Promise.resolve(undefined);
      waiting.push(resolve);
      worker.postMessage(question);
      return promise;
    },
    async stop() {
      await worker.terminate();
    },
  };
}

function* cut(answer: Answer | undefined, count: number): Generator<Uint8Array | undefined, void> {
  let at = 0;
  for (let index = 0; index < count; index++) {
    const length = answer?.lengths[index] ?? -1;
    yield length < 0 ? undefined : answer?.bytes.subarray(at, at + length);
    if (length > 0) at += length;
  }
}
