import { expect, test } from 'vitest';
import { runAll } from '../../src/core/run-all.ts';

/** Settles when the signal fires, as work that is stopped does. */
function untilStopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
}

test('all run at once, and all are waited for', async () => {
  const begun: number[] = [];
  const gate = Promise.withResolvers<void>();
  await runAll([1, 2, 3], async (item) => {
    begun.push(item);
    if (item === 3) gate.resolve();
    await gate.promise;
  });
  expect(begun).toEqual([1, 2, 3]);
});

test('the first failure stops the others, is waited for, and is what is thrown', async () => {
  const failure = new Error('the second');
  const ended: number[] = [];
  const run = runAll([1, 2, 3], async (item, signal) => {
    try {
      if (item === 2) throw failure;
      await untilStopped(signal);
    } finally {
      ended.push(item);
    }
  });
  await expect(run).rejects.toBe(failure);
  expect(ended.sort()).toEqual([1, 2, 3]);
});

test('an abort stops all with its reason', async () => {
  const stop = new AbortController();
  const reason = new Error('enough');
  const run = runAll([1, 2], (_, signal) => untilStopped(signal), { signal: stop.signal });
  stop.abort(reason);
  await expect(run).rejects.toBe(reason);
});

test('nothing to do is done', async () => {
  await expect(runAll([], () => Promise.reject(new Error('never')))).resolves.toBeUndefined();
});
