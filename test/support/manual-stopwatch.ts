import type { Stopwatch } from '../../src/core/index.ts';

/** A stopwatch that stands still until the test moves it. */
export interface ManualStopwatch extends Stopwatch {
  /** Time goes by in which this thread waits. */
  wait(ms: number): void;
  /** Time goes by in which it works. */
  work(ms: number): void;
}

export function manualStopwatch(): ManualStopwatch {
  let now = 1000;
  let busy = 300;
  return {
    now: () => now,
    busy: () => busy,
    wait(ms) {
      now += ms;
    },
    work(ms) {
      now += ms;
      busy += ms;
    },
  };
}
