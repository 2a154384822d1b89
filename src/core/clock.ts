import { setTimeout as sleepFor } from 'node:timers/promises';
import type { CallOptions } from './abort.ts';

/** Time, so that tests can own it. */
export interface Clock {
  /** Milliseconds since 1970-01-01T00:00:00Z. */
  now(): number;
  /** Resolves after `ms` milliseconds, or rejects with `signal.reason`. */
  sleep(ms: number, options?: CallOptions): Promise<void>;
}

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleep(ms, { signal } = {}) {
    signal?.throwIfAborted();
    try {
      await sleepFor(ms, undefined, { signal });
    } catch (error) {
      signal?.throwIfAborted(); // the timer rejects with an AbortError of its own: ours is the caller's reason
      throw error;
    }
  },
};
