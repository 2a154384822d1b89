import { describe, expect, test } from 'vitest';
import { BackupError, isRetryable, retry } from '../../src/core/index.ts';
import { manualClock } from '../support/manual-clock.ts';

const passing = () => new BackupError('TIMEOUT', 'too slow', { retryable: true });
const lasting = () => new BackupError('NOT_FOUND', 'no such VM');

/** Fails with the given errors, one a try, then gives `done`. */
function failing(...errors: unknown[]) {
  const attempts: number[] = [];
  const work = async (attempt: number) => {
    attempts.push(attempt);
    const error = errors[attempt - 1];
    if (error !== undefined) throw error;
    return 'done';
  };
  return { attempts, work };
}

describe('retry', () => {
  test('gives the first success and does not wait', async () => {
    const clock = manualClock();
    const { attempts, work } = failing();
    expect(await retry(work, { clock })).toBe('done');
    expect([attempts, clock.sleeps]).toEqual([[1], []]);
  });

  test('waits twice as long each time, up to a limit, and tells before each wait', async () => {
    const clock = manualClock();
    const errors = [passing(), passing(), passing(), passing()];
    const { attempts, work } = failing(...errors);
    const told: unknown[] = [];
    const result = retry(work, {
      clock,
      delayMs: 100,
      maxDelayMs: 350,
      onRetry: (error, attempt, waitMs) => told.push([error, attempt, waitMs, clock.sleeps.length]),
    });
    await clock.advance(99);
    expect(attempts).toEqual([1]);
    await clock.advance(1);
    expect(attempts).toEqual([1, 2]);
    await clock.advance(10_000);
    expect(await result).toBe('done');
    expect(clock.sleeps).toEqual([100, 200, 350, 350]);
    expect(told).toEqual([
      [errors[0], 1, 100, 0],
      [errors[1], 2, 200, 1],
      [errors[2], 3, 350, 2],
      [errors[3], 4, 350, 3],
    ]);
  });

  test('throws the last failure after five tries, if not told otherwise', async () => {
    const clock = manualClock();
    const errors = Array.from({ length: 6 }, passing);
    const { attempts, work } = failing(...errors);
    const result = expect(retry(work, { clock })).rejects.toBe(errors[4]);
    await clock.advance(3_600_000);
    await result;
    expect(attempts).toEqual([1, 2, 3, 4, 5]);
    expect(clock.sleeps).toEqual([1000, 2000, 4000, 8000]);
  });

  test.each([1, 0])('%i tries: one try', async (tries) => {
    const { attempts, work } = failing(passing());
    await expect(retry(work, { tries, clock: manualClock() })).rejects.toMatchObject({ code: 'TIMEOUT' });
    expect(attempts).toEqual([1]);
  });

  test('does not repeat what cannot get better', async () => {
    for (const error of [lasting(), new Error('a bug'), 'a string']) {
      const { attempts, work } = failing(error);
      await expect(retry(work, { clock: manualClock() })).rejects.toBe(error);
      expect(attempts).toEqual([1]);
    }
  });

  test('`when` decides instead of the error', async () => {
    const clock = manualClock();
    const { work } = failing(lasting());
    const result = retry(work, { clock, when: (error) => error instanceof BackupError && error.code === 'NOT_FOUND' });
    await clock.advance(1000);
    expect(await result).toBe('done');
    const refused = failing(passing());
    await expect(retry(refused.work, { clock, when: () => false })).rejects.toMatchObject({ code: 'TIMEOUT' });
  });

  test('an abort before, while working and while waiting rejects with its reason', async () => {
    const reason = new Error('enough');
    const before = failing();
    await expect(retry(before.work, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(before.attempts).toEqual([]);

    const working = new AbortController();
    const whileWorking = retry(
      async () => {
        working.abort(reason);
        throw passing();
      },
      { signal: working.signal, clock: manualClock() },
    );
    await expect(whileWorking).rejects.toBe(reason);

    const waiting = new AbortController();
    const clock = manualClock();
    const { attempts, work } = failing(passing());
    const result = expect(retry(work, { signal: waiting.signal, clock })).rejects.toBe(reason);
    await clock.untilSleeping();
    waiting.abort(reason);
    await result;
    expect(attempts).toEqual([1]);
  });
});

test('only our errors can say that another try is worth while', () => {
  expect(
    [passing(), lasting(), Object.assign(new Error('x'), { retryable: true }), undefined].map(isRetryable),
  ).toEqual([true, false, false, false]);
});
