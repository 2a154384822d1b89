import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../../src/core/index.ts';

/** A clock that stands still until the test moves it. */
export interface ManualClock extends Clock {
  /** How many sleepers wait now. */
  readonly sleeping: number;
  /** Every sleep that was asked for, in milliseconds, in order. */
  readonly sleeps: readonly number[];
  /** Moves the time on and wakes, in order of their time, those whose time has come; what they start runs first. */
  advance(ms: number): Promise<void>;
  /** Resolves when at least `count` sleepers wait. */
  untilSleeping(count?: number): Promise<void>;
}

interface Sleeper {
  readonly at: number;
  wake(): void;
}

/** @param start - milliseconds since 1970-01-01T00:00:00Z. */
export function manualClock(start = Date.UTC(2026, 0, 1)): ManualClock {
  let now = start;
  const sleepers = new Set<Sleeper>();
  const sleeps: number[] = [];
  const watchers = new Set<() => void>();

  function nextUpTo(end: number): Sleeper | undefined {
    let first: Sleeper | undefined;
    for (const sleeper of sleepers)
      if (sleeper.at <= end && (first === undefined || sleeper.at < first.at)) first = sleeper;
    return first;
  }

  return {
    now: () => now,
    get sleeping() {
      return sleepers.size;
    },
    sleeps,
    async sleep(ms, { signal } = {}) {
      signal?.throwIfAborted();
      sleeps.push(ms);
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const sleeper: Sleeper = { at: now + ms, wake: resolve };
      const onAbort = () => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      sleepers.add(sleeper);
      for (const look of watchers) look();
      try {
        await promise;
      } finally {
        sleepers.delete(sleeper);
        signal?.removeEventListener('abort', onAbort);
      }
    },
    async advance(ms) {
      const end = now + ms;
      await setImmediate(); // lets what was just started come to its sleep
      for (let sleeper = nextUpTo(end); sleeper !== undefined; sleeper = nextUpTo(end)) {
        now = Math.max(now, sleeper.at);
        sleepers.delete(sleeper);
        sleeper.wake();
        await setImmediate();
      }
      now = end;
    },
    async untilSleeping(count = 1) {
      if (sleepers.size >= count) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = () => {
        if (sleepers.size >= count) resolve();
      };
      watchers.add(look);
      await promise;
      watchers.delete(look);
    },
  };
}
