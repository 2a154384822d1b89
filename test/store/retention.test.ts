import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { periodOf } from '../../src/store/periods.ts';
import { decideRetention, type RetentionPoint, type RetentionPolicy } from '../../src/store/retention.ts';

const HOUR = 3600 * 1000;
const DAY = 24 * HOUR;
const NOW = Date.parse('2026-11-26T12:00:00Z');

function pointAt(timeMs: number, change: Partial<RetentionPoint> = {}): RetentionPoint {
  return {
    vmUuid: 'vm',
    point: new Date(timeMs).toISOString(),
    strategy: 'changed-blocks',
    type: 'full',
    createdAt: new Date(timeMs).toISOString(),
    bases: [],
    keptSnapshot: false,
    bytes: 1,
    ...change,
  };
}

/** Fulls, one every `stepMs`, the newest first. */
const fulls = (count: number, stepMs: number) => Array.from({ length: count }, (_, i) => pointAt(NOW - i * stepMs));

const kept = (points: readonly RetentionPoint[], policy: RetentionPolicy, now = NOW) =>
  decideRetention(points, policy, now).filter(({ action }) => action === 'keep');

const rulesOf = (points: readonly RetentionPoint[], policy: RetentionPolicy) =>
  decideRetention(points, policy, NOW).map(({ reasons }) => reasons.map(({ rule }) => rule));

describe('periods', () => {
  test.each([
    ['2026-11-22T23:30:00Z', 'day', 'UTC', '2026-11-22'],
    ['2026-11-22T23:30:00Z', 'day', 'Europe/Vienna', '2026-11-23'],
    ['2026-01-01T04:00:00Z', 'year', 'America/New_York', '2025'],
    ['2026-11-30T23:30:00Z', 'month', 'Asia/Kathmandu', '2026-12'],
    // ISO weeks at the turn of years: 2027 begins on a Friday, 2026 has 53 weeks
    ['2027-01-01T12:00:00Z', 'week', 'UTC', '2026-W53'],
    ['2027-01-04T00:00:00Z', 'week', 'UTC', '2027-W01'],
    ['2024-12-30T00:00:00Z', 'week', 'UTC', '2025-W01'],
    ['2026-11-22T23:30:00Z', 'week', 'UTC', '2026-W47'],
    ['2026-11-22T23:30:00Z', 'week', 'Europe/Vienna', '2026-W48'],
    ['2026-03-29T01:30:00Z', 'hour', 'Europe/Vienna', '2026-03-29 03h +02:00'],
  ] as const)('%s is in the %s of %s: %s', (time, period, zone, name) => {
    expect(periodOf(Date.parse(time), period, zone)).toBe(name);
  });

  test('the hour that clocks go through twice is two; the one they leave out is none', () => {
    const [first, second] = ['2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z'].map((time) =>
      periodOf(Date.parse(time), 'hour', 'Europe/Vienna'),
    );
    expect(first).toMatch(/ 02h \+02:00$/);
    expect(second).toMatch(/ 02h \+01:00$/);
  });
});

describe('rules', () => {
  test('the last so many', () => {
    expect(kept(fulls(5, HOUR), { keepLast: 2 }).map(({ point }) => point)).toEqual(
      fulls(2, HOUR).map(({ point }) => point),
    );
  });

  test('one for each period, the newest, of periods that have one', () => {
    const points = [0, 1, 2, 26, 27, 100, 2000].map((hours) => pointAt(NOW - hours * HOUR));
    const names = (policy: RetentionPolicy) =>
      kept(points, policy).map(({ point }) => points.findIndex((p) => p.point === point));
    expect(names({ keepDaily: 3 })).toEqual([0, 3, 5]);
    expect(names({ keepHourly: 2 })).toEqual([0, 1]);
    expect(names({ keepMonthly: 12 })).toEqual([0, 6]);
    expect(names({ keepYearly: 1, keepWeekly: 2 })).toEqual([0, 5]);
    expect(rulesOf(points, { keepDaily: 1, keepMonthly: 1, keepLast: 1 })[0]).toEqual([
      'newest',
      'last',
      'day',
      'month',
    ]);
  });

  test('by age: all that are younger; nothing that is older, save what is next', () => {
    const points = fulls(10, DAY);
    expect(kept(points, { keepWithinMs: 3 * DAY })).toHaveLength(4);
    expect(kept(points, { expireAfterMs: 3 * DAY })).toHaveLength(4);
    expect(kept(points, { keepDaily: 30, expireAfterMs: 3 * DAY })).toHaveLength(4);
    const old = kept(points, { expireAfterMs: 3 * DAY }, NOW + 1000 * DAY);
    expect(old).toMatchObject([{ point: points[0]!.point, reasons: [{ rule: 'newest' }] }]);
    expect(kept(points, { expireAfterMs: 3 * DAY, expireNewest: true }, NOW + 1000 * DAY)).toEqual([]);
  });

  test('each VM and each strategy by itself', () => {
    const points = [
      ...fulls(3, HOUR),
      ...fulls(3, HOUR).map((point) => ({ ...point, vmUuid: 'other' })),
      ...fulls(3, HOUR).map((point) => ({ ...point, point: `image ${point.point}`, strategy: 'image' as const })),
    ];
    expect(kept(points, { keepLast: 1 })).toHaveLength(3);
  });

  test('a policy that would expire everything, or counts nothing, is none', () => {
    expect(() => decideRetention([], {}, NOW)).toThrow(TypeError);
    expect(() => decideRetention([], { keepDaily: 0, timeZone: 'UTC' }, NOW)).toThrow(TypeError);
    expect(() => decideRetention([], { keepLast: -1 }, NOW)).toThrow(RangeError);
    expect(() => decideRetention([], { keepLast: 1.5 }, NOW)).toThrow(RangeError);
    expect(() => decideRetention([], { keepWithinMs: Number.NaN }, NOW)).toThrow(RangeError);
    expect(() => decideRetention([], { keepLast: 1, timeZone: 'Europe/Nowhere' }, NOW)).toThrow(RangeError);
  });
});

describe('what others need', () => {
  /** A full and increments on it; of the image strategy all on the full, else each on the one before. */
  function chain(strategy: 'image' | 'changed-blocks', length: number): RetentionPoint[] {
    const points: RetentionPoint[] = [];
    for (let i = 0; i < length; i++) {
      const base = strategy === 'image' ? points[0] : points.at(-1);
      const time = NOW - (length - i) * DAY;
      const link = base === undefined ? {} : { type: 'incr' as const, bases: [base.point] };
      points.push(pointAt(time, { strategy, keptSnapshot: strategy === 'changed-blocks' || i === 0, ...link }));
    }
    return points;
  }

  test('a chain stays whole below what is kept', () => {
    expect(rulesOf(chain('changed-blocks', 4), { keepLast: 1 })).toEqual([
      ['needed'],
      ['needed'],
      ['needed'],
      ['newest', 'base', 'last'],
    ]);
  });

  test('increments on one full go one by one; the full stays, also as the base of the next', () => {
    expect(rulesOf(chain('image', 4), { keepLast: 1 })).toEqual([
      ['base', 'needed'],
      ['expired'],
      ['expired'],
      ['newest', 'last'],
    ]);
  });

  test('with merge the head of a chain becomes a full, and what it stood on goes', () => {
    const points = chain('changed-blocks', 5);
    const verdicts = decideRetention(points, { keepLast: 2, merge: true }, NOW);
    expect(verdicts.map(({ action, merge }) => [action, merge ?? false])).toEqual([
      ['expire', false],
      ['expire', false],
      ['expire', false],
      ['keep', true],
      ['keep', false],
    ]);
    expect(verdicts[3]!.bases).toEqual([points[2]!.point]); // as it is now
    expect(decideRetention(chain('image', 4), { keepLast: 1, merge: true }, NOW).some(({ merge }) => merge)).toBe(
      false,
    );
    expect(decideRetention(points, { keepLast: 5, merge: true }, NOW).some(({ merge }) => merge)).toBe(false);
  });

  test('what stands on a point that is missing cannot be merged', () => {
    const [full, incr] = chain('changed-blocks', 2);
    const points = [full!, { ...incr!, bases: [full!.point, 'another disk’s, gone'] }];
    expect(decideRetention(points, { keepLast: 1, merge: true }, NOW).some(({ merge }) => merge)).toBe(false);
  });

  test('an old chain goes as a whole once nothing of it is kept', () => {
    const old = chain('changed-blocks', 4);
    const points = [...old, pointAt(NOW)];
    expect(kept(points, { keepLast: 1 }).map(({ type }) => type)).toEqual(['full']);
  });

  test('for any history: all get a verdict with a reason, nothing that is kept lacks what it needs', () => {
    const history = fc.array(
      fc.record({
        vm: fc.constantFrom('a', 'b'),
        strategy: fc.constantFrom('image' as const, 'changed-blocks' as const),
        gapMs: fc.integer({ min: 1, max: 40 * HOUR }),
        full: fc.boolean(),
        kept: fc.boolean(),
      }),
      { maxLength: 60 },
    );
    const count = fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined });
    const policies = fc.record({
      keepLast: fc.integer({ min: 1, max: 5 }),
      keepHourly: count,
      keepDaily: count,
      keepWeekly: count,
      keepMonthly: count,
      expireNewest: fc.boolean(),
      merge: fc.boolean(),
      timeZone: fc.constantFrom('UTC', 'Europe/Vienna', 'America/St_Johns'),
    });
    fc.assert(
      fc.property(history, policies, (steps, policy) => {
        const points: RetentionPoint[] = [];
        let time = NOW;
        for (const { vm, strategy, gapMs, full, kept: keptSnapshot } of steps) {
          time += gapMs;
          const same = points.filter((one) => one.vmUuid === vm && one.strategy === strategy);
          const base = strategy === 'image' ? same.findLast(({ type }) => type === 'full') : same.at(-1);
          const link = base === undefined || full ? {} : { type: 'incr' as const, bases: [base.point] };
          points.push(pointAt(time, { vmUuid: vm, strategy, keptSnapshot, ...link }));
        }
        const verdicts = decideRetention(points, policy, time);
        expect(verdicts.map(({ point }) => point)).toEqual(points.map(({ point }) => point));
        for (const { reasons } of verdicts) expect(reasons.length).toBeGreaterThan(0);
        const stay = new Set(
          verdicts.filter(({ action }) => action === 'keep').map(({ vmUuid, point }) => vmUuid + point),
        );
        for (const { vmUuid, bases, action, merge } of verdicts) {
          if (action === 'keep' && merge !== true) for (const base of bases) expect(stay).toContain(vmUuid + base);
        }
        // The naive reading of the one rule that is always there: the last so many of each VM and strategy.
        for (const vm of ['a', 'b']) {
          for (const strategy of ['image', 'changed-blocks']) {
            const same = points.filter((one) => one.vmUuid === vm && one.strategy === strategy);
            for (const { point } of same.slice(-policy.keepLast)) expect(stay).toContain(vm + point);
          }
        }
      }),
    );
  });
});
