import type { Clock } from '../core/index.ts';

/**
 * Waits for `work`, but not longer than `ms`: cleaning up must come to an end with a host that has fallen silent, too.
 * Resolves with whether the work has ended; rejects as it does.
 */
export async function settledWithin(work: Promise<unknown>, ms: number, clock: Clock): Promise<boolean> {
  const stop = new AbortController();
  const late = clock.sleep(ms, { signal: stop.signal }).then(
    () => false,
    () => true, // the work was in time
  );
  try {
    return await Promise.race([work.then(() => true), late]); // a failure that comes too late is taken note of here
  } finally {
    stop.abort();
  }
}
