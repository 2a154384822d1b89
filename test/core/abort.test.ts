import { getEventListeners } from 'node:events';
import { describe, expect, test } from 'vitest';
import { abortable, anySignal, systemClock } from '../../src/core/index.ts';

const reason = new Error('enough');

describe('anySignal', () => {
  test('of none is none, of one is that one', () => {
    const { signal } = new AbortController();
    expect(anySignal()).toBeUndefined();
    expect(anySignal(undefined, undefined)).toBeUndefined();
    expect(anySignal(undefined, signal)).toBe(signal);
  });

  test('of several fires with the first, and its reason', () => {
    const [a, b] = [new AbortController(), new AbortController()];
    const any = anySignal(a.signal, undefined, b.signal);
    expect(any?.aborted).toBe(false);
    any?.addEventListener('abort', () => {}); // unobserved, Node 24 looks for the reason only when asked
    b.abort(reason);
    a.abort(new Error('later'));
    expect(any?.reason).toBe(reason);
  });
});

describe('abortable', () => {
  test('settles as the promise does', async () => {
    const { signal } = new AbortController();
    const failure = new Error('failed');
    for (const given of [undefined, signal]) {
      expect(await abortable(Promise.resolve(7), given)).toBe(7);
      await expect(abortable(Promise.reject(failure), given)).rejects.toBe(failure);
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  test('rejects with the reason while the promise hangs, and leaves no listener', async () => {
    const stop = new AbortController();
    const { promise, reject } = Promise.withResolvers<never>();
    const waiting = abortable(promise, stop.signal);
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    expect(getEventListeners(stop.signal, 'abort')).toEqual([]);
    reject(new Error('a late failure that nobody awaits')); // would end the test run if it were unhandled
  });

  test('rejects at once when the signal has fired before', async () => {
    const never = new Promise<never>(() => {});
    await expect(abortable(never, AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe('systemClock', () => {
  test('tells the time and sleeps', async () => {
    const before = systemClock.now();
    await systemClock.sleep(0);
    expect(systemClock.now()).toBeGreaterThanOrEqual(before);
  });

  test('wakes from a sleep with the reason of the abort', async () => {
    const stop = new AbortController();
    const sleep = systemClock.sleep(2 ** 30, { signal: stop.signal });
    stop.abort(reason);
    await expect(sleep).rejects.toBe(reason);
    await expect(systemClock.sleep(0, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
