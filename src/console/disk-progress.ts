/** Over how long the throughput is averaged, in milliseconds. */
const WINDOW_MS = 10_000;
/** Samples are at least this far apart, so that the window holds few of them. */
const SAMPLE_MS = 500;

interface Sample {
  readonly atMs: number;
  readonly movedBytes: number;
}

/** What is known of one disk on its way: pure bookkeeping, times are handed in. */
export interface DiskProgress {
  readonly label: string;
  readonly startedMs: number;
  readonly movedBytes: number;
  /** `undefined` where nobody can know yet. */
  readonly totalBytes: number | undefined;
  /** Between 0 and 1; `undefined` without a total. */
  readonly fraction: number | undefined;
  /** Records that `movedBytes` had moved at `atMs`. */
  moved(atMs: number, movedBytes: number, totalBytes: number | undefined): void;
  /** Bytes a second, of late; `undefined` while too little is known. */
  rate(atMs: number): number | undefined;
  /** Milliseconds to the end at that rate; `undefined` where it cannot be told. */
  remainingMs(atMs: number): number | undefined;
}

export function diskProgress(label: string, startedMs: number, total: number | undefined): DiskProgress {
  let movedBytes = 0;
  let totalBytes = total;
  let samples: Sample[] = [{ atMs: startedMs, movedBytes: 0 }];

  function rate(atMs: number): number | undefined {
    const first = samples[0];
    if (first === undefined || atMs - first.atMs < SAMPLE_MS) return undefined;
    return (Math.max(0, movedBytes - first.movedBytes) * 1000) / (atMs - first.atMs);
  }

  return {
    label,
    startedMs,
    get movedBytes() {
      return movedBytes;
    },
    get totalBytes() {
      return totalBytes;
    },
    get fraction() {
      if (totalBytes === undefined) return undefined;
      return totalBytes === 0 ? 1 : Math.min(1, movedBytes / totalBytes);
    },
    moved(atMs, newMovedBytes, newTotalBytes) {
      movedBytes = newMovedBytes;
      totalBytes = newTotalBytes ?? totalBytes;
      const last = samples.at(-1);
      if (last !== undefined && atMs - last.atMs < SAMPLE_MS) return;
      const recent = samples.filter((sample) => atMs - sample.atMs <= WINDOW_MS);
      samples = [...(recent.length > 0 ? recent : samples.slice(-1)), { atMs, movedBytes }];
    },
    rate,
    remainingMs(atMs) {
      const bytesPerSecond = rate(atMs);
      if (totalBytes === undefined || bytesPerSecond === undefined || bytesPerSecond === 0) return undefined;
      return (Math.max(0, totalBytes - movedBytes) * 1000) / bytesPerSecond;
    },
  };
}
