import type { CallOptions, Clock } from '../core/index.ts';

/** So much may come at once after a rest, in milliseconds of the rate. */
const BURST_MS = 100;

/** Holds what passes to so many bytes a second, taken together. */
export interface Pace {
  /** `undefined`: as fast as it goes. */
  bytesPerSecond: number | undefined;
  /** Waits until so many bytes, which have passed or are about to, fit. */
  pass(bytes: number, clock: Clock, options?: CallOptions): Promise<void>;
}

export function createPace(): Pace {
  /** When all that has passed will have been within the rate, in milliseconds since 1970. */
  let paidAt = 0;
  return {
    bytesPerSecond: undefined,
    async pass(bytes, clock, options = {}) {
      if (this.bytesPerSecond === undefined) return;
      const now = clock.now();
      paidAt = Math.max(paidAt, now - BURST_MS) + (bytes / this.bytesPerSecond) * 1000;
      if (paidAt > now) await clock.sleep(paidAt - now, options);
    },
  };
}
