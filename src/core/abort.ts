/** What every call that may take time accepts. */
export interface CallOptions {
  /** Stops the work; the call then rejects with `signal.reason`, untouched. */
  readonly signal?: AbortSignal | undefined;
}

/** One signal that fires with the first of those given; `undefined` members are left out. */
export function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal | undefined {
  const given = signals.filter((signal) => signal !== undefined);
  return given.length > 1 ? AbortSignal.any(given) : given[0];
}

/**
 * Settles as `promise` does, or rejects with `signal.reason` as soon as the signal fires. Only for waiting: the work
 * behind `promise` goes on, so hand the signal to that work, too.
 */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]); // a failure after the abort is taken note of by the race
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
