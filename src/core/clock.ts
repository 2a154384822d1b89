import { setTimeout as sleepFor } from 'node:timers/promises';
import type { CallOptions } from './abort.ts';

export interface SleepOptions extends CallOptions {
  /**
   * Does the wait keep the process alive?
   * @defaultValue `true`
   */
  readonly ref?: boolean | undefined;
}

/** Time, so that tests can own it. */
export interface Clock {
  /** Milliseconds since 1970-01-01T00:00:00Z. */
  now(): number;
  /** Resolves after `ms` milliseconds, or rejects with `signal.reason`. */
  sleep(ms: number, options?: SleepOptions): Promise<void>;
}

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleep(ms, { signal, ref = true } = {}) {
    signal?.throwIfAborted();
    try {
      await sleepFor(ms, undefined, { signal, ref });
    } catch (error) {
      signal?.throwIfAborted(); // the timer rejects with an AbortError of its own: ours is the caller's reason
      throw error;
    }
  },
};
