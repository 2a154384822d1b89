import type { PointId, PointType, Strategy } from './manifest.ts';
import { type Period, periodOf } from './periods.ts';

/**
 * Which points to keep: each rule keeps some, and what no rule keeps expires. Rules count for each VM and strategy by
 * itself. A rule of a period keeps the newest point of each of the last so many periods that have one.
 */
export interface RetentionPolicy {
  /** The newest so many. */
  readonly keepLast?: number | undefined;
  /** The newest of each of the last so many hours that have one. */
  readonly keepHourly?: number | undefined;
  /** The newest of each of the last so many days that have one. */
  readonly keepDaily?: number | undefined;
  /** Weeks begin on Monday (ISO 8601). */
  readonly keepWeekly?: number | undefined;
  /** The newest of each of the last so many months that have one. */
  readonly keepMonthly?: number | undefined;
  /** The newest of each of the last so many years that have one. */
  readonly keepYearly?: number | undefined;
  /** All that are younger, in milliseconds. */
  readonly keepWithinMs?: number | undefined;
  /** No rule keeps what is older, in milliseconds. By itself it is a policy, too: all younger ones stay. */
  readonly expireAfterMs?: number | undefined;
  /**
   * Where days and hours begin, an IANA name such as `Europe/Vienna`.
   * @defaultValue `'UTC'`
   */
  readonly timeZone?: string | undefined;
  /**
   * Expire the newest point of a VM, too, where no rule keeps it: for VMs that are no more. Without it nothing ever removes
   * the last backup of a VM, nor the point that the next increment builds on.
   * @defaultValue `false`
   */
  readonly expireNewest?: boolean | undefined;
  /**
   * Where points of changed blocks stay only because one that is kept needs them, that one is made a full in its place, and
   * they expire: for chains that never get a new full from the host. It costs two reads of the chain
   * and a write of the whole disks.
   * @defaultValue `false`
   */
  readonly merge?: boolean | undefined;
}

/** A point, as far as retention looks at it. */
export interface RetentionPoint extends PointId {
  /** Rules count for each strategy by itself. */
  readonly strategy: Strategy;
  /** Does it need another point? */
  readonly type: PointType;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** The points that it needs. */
  readonly bases: readonly string[];
  /** Was its snapshot left on the host, for the next increment? */
  readonly keptSnapshot: boolean;
  /** Of its files, in bytes. */
  readonly bytes: number;
}

/** Why a point stays or goes. */
export type RetentionReason =
  | {
      /** A rule of the policy keeps it. */
      readonly rule: 'last' | Period | 'within';
      /** In words. */
      readonly detail: string;
    }
  | {
      /** The newest of its VM and strategy. */
      readonly rule: 'newest';
    }
  | {
      /** The next increment builds on it. */
      readonly rule: 'base';
    }
  | {
      /** Points that stay need it. */
      readonly rule: 'needed';
      /** Which. */
      readonly by: readonly string[];
    }
  | {
      /** No rule keeps it. */
      readonly rule: 'expired';
      /** In words. */
      readonly detail: string;
    }
  | {
      /** Nobody can know what needs it. */
      readonly rule: 'unsure';
      /** In words. */
      readonly detail: string;
    };

/** A point, and what is to become of it. */
export interface RetentionVerdict extends RetentionPoint {
  /** What is to become of it. */
  readonly action: 'keep' | 'expire';
  /** At least one. */
  readonly reasons: readonly RetentionReason[];
  /** Is it to be made a full, so that what it builds on can expire? */
  readonly merge?: true | undefined;
}

const PERIODS = [
  ['hour', 'keepHourly'],
  ['day', 'keepDaily'],
  ['week', 'keepWeekly'],
  ['month', 'keepMonthly'],
  ['year', 'keepYearly'],
] as const;

/**
 * Decides for every point whether it stays, and why. A point that one that stays needs always stays. Pure: neither clock
 * nor store are looked at.
 *
 * @param now milliseconds since 1970.
 * @throws TypeError for a policy without a rule; RangeError for a number that counts nothing, or an unknown time zone.
 */
export function decideRetention(
  points: readonly RetentionPoint[],
  policy: RetentionPolicy,
  now: number,
): RetentionVerdict[] {
  assertPolicy(policy);
  const verdicts = decide(points, policy, now);
  if (policy.merge !== true) return verdicts;
  const forItself = new Map(verdicts.map((verdict) => [nameOf(verdict), isKeptForItself(verdict)]));
  const merging = new Set(verdicts.filter((verdict) => standsOnExpired(verdict, forItself)).map(nameOf));
  // As if they were fulls already: what only they need is then needed no more.
  const after = points.map((point) => (merging.has(nameOf(point)) ? { ...point, bases: [] } : point));
  return decide(after, policy, now).map((verdict, index) => {
    const { bases } = points[index]!;
    return merging.has(nameOf(verdict)) ? { ...verdict, bases, merge: true } : verdict;
  });
}

/** Is it kept for itself, on points that are there and of which none is? */
function standsOnExpired(verdict: RetentionVerdict, forItself: ReadonlyMap<string, boolean>): boolean {
  const { vmUuid, strategy, bases } = verdict;
  if (strategy !== 'changed-blocks' || bases.length === 0 || forItself.get(nameOf(verdict)) !== true) return false;
  return bases.every((point) => forItself.get(nameOf({ vmUuid, point })) === false);
}

function isKeptForItself({ reasons }: RetentionVerdict): boolean {
  return reasons.some(({ rule }) => rule !== 'needed' && rule !== 'expired');
}

function nameOf({ vmUuid, point }: PointId): string {
  return `${vmUuid}/${point}`;
}

function decide(points: readonly RetentionPoint[], policy: RetentionPolicy, now: number): RetentionVerdict[] {
  const reasons = new Map<RetentionPoint, RetentionReason[]>(points.map((point) => [point, []]));
  const keep = (point: RetentionPoint, reason: RetentionReason) => reasons.get(point)!.push(reason);
  for (const group of groupsOf(points)) applyRules(group, policy, now, keep);
  keepNeeded(points, reasons);
  return points.map((point) => {
    const found = reasons.get(point)!;
    if (found.length > 0) return { ...point, action: 'keep', reasons: found };
    const detail = isTooOld(point, policy, now) ? 'older than the policy keeps any' : 'no rule keeps it';
    return { ...point, action: 'expire', reasons: [{ rule: 'expired', detail }] };
  });
}

type Keep = (point: RetentionPoint, reason: RetentionReason) => void;

/** The points of one VM and strategy, newest first. */
function applyRules(group: readonly RetentionPoint[], policy: RetentionPolicy, now: number, keep: Keep): void {
  const { keepLast = 0, keepWithinMs, expireAfterMs, timeZone = 'UTC', expireNewest = false } = policy;
  if (!expireNewest) keepWhatIsNext(group, keep);
  const young = group.filter((point) => !isTooOld(point, policy, now));
  for (const [index, point] of young.slice(0, keepLast).entries()) {
    keep(point, { rule: 'last', detail: `${index + 1} of the last ${keepLast}` });
  }
  for (const [period, rule] of PERIODS) {
    const count = policy[rule] ?? 0;
    const seen = new Set<string>();
    for (const point of count === 0 ? [] : young) {
      const name = periodOf(Date.parse(point.createdAt), period, timeZone);
      if (seen.has(name)) continue;
      if (seen.size === count) break;
      seen.add(name);
      keep(point, { rule: period, detail: `newest of ${name}` });
    }
  }
  const onlyByAge = PERIODS.every(([, rule]) => !policy[rule]) && keepLast === 0 && keepWithinMs === undefined;
  const within = keepWithinMs ?? (onlyByAge ? expireAfterMs : undefined);
  if (within === undefined) return;
  for (const point of young) {
    if (now - Date.parse(point.createdAt) <= within)
      keep(point, { rule: 'within', detail: `younger than ${within} ms` });
  }
}

/** The newest point, and the one whose snapshot the next increment is held against. */
function keepWhatIsNext(group: readonly RetentionPoint[], keep: Keep): void {
  const newest = group[0]!;
  keep(newest, { rule: 'newest' });
  const base = newest.strategy === 'image' && newest.type === 'incr' ? newest.bases[0] : newest.point;
  const found = group.find(({ point, keptSnapshot }) => point === base && keptSnapshot);
  if (found !== undefined) keep(found, { rule: 'base' });
}

/** What is needed by what stays, stays; and so on down to the fulls. */
function keepNeeded(points: readonly RetentionPoint[], reasons: ReadonlyMap<RetentionPoint, RetentionReason[]>): void {
  const byName = new Map(points.map((point) => [nameOf(point), point]));
  const neededBy = new Map<RetentionPoint, string[]>();
  const open = points.filter((point) => reasons.get(point)!.length > 0);
  const reached = new Set(open);
  for (let point = open.pop(); point !== undefined; point = open.pop()) {
    for (const name of point.bases) {
      const base = byName.get(nameOf({ vmUuid: point.vmUuid, point: name }));
      if (base === undefined) continue; // broken already: verification tells
      const by = neededBy.get(base);
      if (by === undefined) neededBy.set(base, [point.point]);
      else by.push(point.point);
      if (reached.has(base)) continue;
      reached.add(base);
      open.push(base);
    }
  }
  for (const [base, by] of neededBy) reasons.get(base)!.push({ rule: 'needed', by: by.sort() });
}

function isTooOld({ createdAt }: RetentionPoint, { expireAfterMs }: RetentionPolicy, now: number): boolean {
  return expireAfterMs !== undefined && now - Date.parse(createdAt) > expireAfterMs;
}

/** By VM and strategy; within, the newest first. Of two of one time the name decides. */
function groupsOf(points: readonly RetentionPoint[]): RetentionPoint[][] {
  const groups = new Map<string, RetentionPoint[]>();
  for (const point of points) {
    const key = `${point.vmUuid}/${point.strategy}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [point]);
    else group.push(point);
  }
  const later = (a: RetentionPoint, b: RetentionPoint) =>
    Date.parse(b.createdAt) - Date.parse(a.createdAt) || (a.point < b.point ? 1 : -1);
  return [...groups.values()].map((group) => group.sort(later));
}

function assertPolicy(policy: RetentionPolicy): void {
  const counts = ['keepLast', ...PERIODS.map(([, rule]) => rule)] as const;
  const ages = ['keepWithinMs', 'expireAfterMs'] as const;
  for (const name of counts) {
    const value = policy[name];
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw new RangeError(`${name}: expected a number of points, got ${value}`);
  }
  for (const name of ages) {
    const value = policy[name];
    if (value !== undefined && !(value >= 0)) throw new RangeError(`${name}: expected milliseconds, got ${value}`);
  }
  const hasRule = counts.some((name) => (policy[name] ?? 0) > 0) || ages.some((name) => policy[name] !== undefined);
  if (!hasRule) throw new TypeError('a policy without a rule would expire every point');
  periodOf(0, 'day', policy.timeZone ?? 'UTC');
}
