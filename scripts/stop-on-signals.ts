import { constants } from 'node:os';

/** What a terminal and a supervisor end a program with. */
const NAMES = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Aborts when the process is told to end, so that it can do so in order. The same signal a second time ends it at once.
 *
 * @param onSignal - called first, with the exit code by which shells know the signal
 */
export function stopOnSignals(onSignal: (exitCode: number) => void = () => {}): AbortSignal {
  const stop = new AbortController();
  for (const name of NAMES) {
    process.once(name, () => {
      onSignal(128 + constants.signals[name]);
      stop.abort(new Error(name));
    });
  }
  return stop.signal;
}
