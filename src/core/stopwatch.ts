import { performance } from 'node:perf_hooks';

/** How long things take, so that tests can own it. Setting the machine's clock does not move it. */
export interface Stopwatch {
  /** Milliseconds since some moment. */
  now(): number;
  /** For how many of them this thread worked, for whatever; for the others it waited. */
  busy(): number;
}

/** The stopwatch of this thread: it works while its event loop is not idle. */
export const systemStopwatch: Stopwatch = {
  now: () => performance.now(),
  busy: () => performance.eventLoopUtilization().active,
};
