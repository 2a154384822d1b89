const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/**
 * A size for people, in powers of 1024: `0 B`, `1.5 KiB`, `130 MiB`.
 *
 * @param bytes - not negative; fractions are allowed, as in a rate.
 * @throws RangeError when it is negative or not finite.
 */
export function formatBytes(bytes: number): string {
  requireAmount('bytes', bytes);
  let unit = 0;
  let value = bytes;
  // 1023.5 would be printed as 1024: it belongs to the next unit.
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/**
 * A time span for people, in its two largest units: `350 ms`, `42 s`, `1 min 05 s`, `2 h 03 min`, `3 d 04 h`.
 *
 * @param ms - milliseconds, not negative.
 * @throws RangeError when it is negative or not finite.
 */
export function formatDuration(ms: number): string {
  requireAmount('ms', ms);
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return inTwoUnits(seconds, 60, 'min', 1, 's');
  if (seconds < 86_400) return inTwoUnits(seconds, 3600, 'h', 60, 'min');
  return inTwoUnits(seconds, 86_400, 'd', 3600, 'h');
}

function inTwoUnits(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName} ${String(rest).padStart(2, '0')} ${smallName}`;
}

function requireAmount(name: string, value: number): void {
  if (!Number.isFinite(value) || value < 0)
    throw new RangeError(`${name} must be finite and not negative, got ${value}`);
}
