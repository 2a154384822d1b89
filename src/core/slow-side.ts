import type { SlowSide, TransferTime } from './report.ts';

/** How long something took, and for how much of that this thread worked, in milliseconds. */
export interface Work {
  readonly elapsedMs: number;
  readonly busyMs: number;
}

/**
 * Whom a transfer waited for most. Transfers that run at once share this thread, and each waits for its host, too, while
 * the thread works for another one: so what the thread worked is taken off first, and the waits divide the rest. On a tie
 * the host comes before the store, and that before the process.
 */
export function slowSideOf(
  { hostMs, hashMs, storeMs }: TransferTime,
  { elapsedMs, busyMs }: Work,
): { readonly slowSide: SlowSide; readonly share: number } {
  const waitedMs = hostMs + storeMs;
  if (waitedMs + hashMs === 0) return { slowSide: 'none', share: 0 };
  if (waitedMs === 0) return { slowSide: 'process', share: 1 };
  const busy = elapsedMs > 0 ? Math.min(1, busyMs / elapsedMs) : 0;
  const sides = [
    { slowSide: 'host', share: ((1 - busy) * hostMs) / waitedMs },
    { slowSide: 'store', share: ((1 - busy) * storeMs) / waitedMs },
    { slowSide: 'process', share: busy },
  ] as const;
  const { slowSide, share } = sides.reduce((most, side) => (side.share > most.share ? side : most));
  return { slowSide, share: Math.round(share * 100) / 100 };
}
