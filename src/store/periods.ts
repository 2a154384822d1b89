/** What points are counted by. */
export type Period = 'hour' | 'day' | 'week' | 'month' | 'year';

const DAY_MS = 24 * 3600 * 1000;
const formats = new Map<string, Intl.DateTimeFormat>();

/**
 * The name of the period in which a moment lies, as a calendar and a clock on the wall of a time zone show it:
 * `2026-11-22 18h +01:00`, `2026-11-22`, `2026-W47`, `2026-11`, `2026`. An hour that the clocks go through twice is two.
 *
 * @param timeMs milliseconds since 1970.
 * @throws RangeError for a time zone that nobody knows.
 */
export function periodOf(timeMs: number, period: Period, timeZone: string): string {
  const { year, month, day, hour, timeZoneName } = wallClock(timeMs, timeZone);
  switch (period) {
    case 'hour':
      return `${year}-${month}-${day} ${hour}h ${timeZoneName.replace('GMT', '') || '+00:00'}`;
    case 'day':
      return `${year}-${month}-${day}`;
    case 'week':
      return isoWeek(Number(year), Number(month), Number(day));
    case 'month':
      return `${year}-${month}`;
    case 'year':
      return year;
  }
}

type Part = 'year' | 'month' | 'day' | 'hour' | 'timeZoneName';

/** No clock on a wall changes its hour, its day or its distance to UTC but at the quarter of an hour. In milliseconds. */
const QUARTER_MS = 15 * 60 * 1000;
/** Quarters whose parts are kept: backups of many VMs fall into few. */
const MOST_QUARTERS = 20_000;
const quarters = new Map<string, Record<Part, string>>();

/** As far as `Part` goes it is the same for all of a quarter of an hour. */
function wallClock(timeMs: number, timeZone: string): Record<Part, string> {
  const quarter = Math.floor(timeMs / QUARTER_MS);
  const key = `${quarter} ${timeZone}`;
  const known = quarters.get(key);
  if (known !== undefined) return known;
  if (quarters.size >= MOST_QUARTERS) quarters.clear();
  const parts = partsOf(quarter * QUARTER_MS, timeZone);
  quarters.set(key, parts);
  return parts;
}

function partsOf(timeMs: number, timeZone: string): Record<Part, string> {
  let format = formats.get(timeZone);
  if (format === undefined) {
    const twoDigits = { month: '2-digit', day: '2-digit', hour: '2-digit' } as const;
    const options = { ...twoDigits, year: 'numeric', hourCycle: 'h23', timeZoneName: 'longOffset', timeZone } as const;
    format = new Intl.DateTimeFormat('en-US', options);
    formats.set(timeZone, format);
  }
  const parts = { year: '', month: '', day: '', hour: '', timeZoneName: '' };
  for (const { type, value } of format.formatToParts(timeMs)) if (type in parts) parts[type as Part] = value;
  return parts;
}

/** A week belongs to the year in which its Thursday lies. Source: ISO 8601, 3.1.1.23. */
function isoWeek(year: number, month: number, day: number): string {
  const date = Date.UTC(year, month - 1, day);
  const weekday = (new Date(date).getUTCDay() + 6) % 7; // 0: Monday
  const thursday = new Date(date + (3 - weekday) * DAY_MS);
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = 1 + Math.floor((thursday.getTime() - first) / (7 * DAY_MS));
  return `${thursday.getUTCFullYear()}-W${String(week).padStart(2, '0')}`;
}
