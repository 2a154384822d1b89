import { anySignal, type CallOptions } from './abort.ts';

/**
 * Works on all items at once and waits for all of them, whatever happens. The first failure stops the others through the
 * signal that each is handed, and is what this rejects with.
 */
export async function runAll<T>(
  items: readonly T[],
  work: (item: T, signal: AbortSignal) => Promise<void>,
  { signal }: CallOptions = {},
): Promise<void> {
  const stop = new AbortController();
  const linked = anySignal(signal, stop.signal) ?? stop.signal;
  const runOne = async (item: T) => {
    try {
      await work(item, linked);
    } catch (error) {
      stop.abort(error); // only the first abort counts: its reason is the first failure
      throw error;
    }
  };
  await Promise.allSettled(items.map(runOne));
  if (stop.signal.aborted) throw stop.signal.reason;
}
