import type { CallOptions } from './abort.ts';
import { type Clock, systemClock } from './clock.ts';
import { BackupError } from './errors.ts';

export interface RetryOptions extends CallOptions {
  /**
   * How often the work is tried in all.
   * @defaultValue `5`
   */
  readonly tries?: number | undefined;
  /**
   * The wait before the second try, in milliseconds; it doubles each time.
   * @defaultValue `1000`
   */
  readonly delayMs?: number | undefined;
  /**
   * The longest wait, in milliseconds.
   * @defaultValue `30000`
   */
  readonly maxDelayMs?: number | undefined;
  /**
   * Is this failure worth another try?
   * @defaultValue `error.retryable` of a {@link BackupError}, `false` for all else
   */
  readonly when?: ((error: unknown) => boolean) | undefined;
  /** Called before each wait. */
  readonly onRetry?: ((error: unknown, attempt: number, waitMs: number) => void) | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/** Repeats `work` while it fails in a way that may pass, with growing waits; then throws the last failure. */
export async function retry<T>(work: (attempt: number) => Promise<T>, options: RetryOptions = {}): Promise<T> {
  const { tries = 5, delayMs = 1000, maxDelayMs = 30_000, when = isRetryable, clock = systemClock, signal } = options;
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await work(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      if (attempt >= tries || !when(error)) throw error;
      const waitMs = Math.min(delayMs * 2 ** (attempt - 1), maxDelayMs);
      options.onRetry?.(error, attempt, waitMs);
      await clock.sleep(waitMs, { signal });
    }
  }
}

/** Does the error itself say that another try is worth while? */
export function isRetryable(error: unknown): boolean {
  return error instanceof BackupError && error.retryable;
}
