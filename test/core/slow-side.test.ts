import { describe, expect, test } from 'vitest';
import { type SlowSide, slowSideOf } from '../../src/core/index.ts';

const time = (hostMs: number, storeMs: number, hashMs = 0) => ({ hostMs, storeMs, hashMs });
const work = (elapsedMs: number, busyMs: number) => ({ elapsedMs, busyMs });

describe('the slow side', () => {
  test.each<[string, ReturnType<typeof time>, ReturnType<typeof work>, SlowSide, number]>([
    ['the host', time(700, 300), work(1000, 0), 'host', 0.7],
    ['the store', time(10, 990), work(1000, 0), 'store', 0.99],
    ['the host, with a thread that is half busy', time(900, 100, 0), work(1000, 400), 'host', 0.54],
    [
      'the process, where each of many waits while it works for the others',
      time(7000, 200, 900),
      work(2000, 1900),
      'process',
      0.95,
    ],
    ['the store, where the waits of many are longer than all of it', time(1000, 3000), work(1000, 100), 'store', 0.68],
    ['a tie of host and store', time(500, 500), work(1000, 0), 'host', 0.5],
    ['a tie of host and process', time(500, 0), work(1000, 500), 'host', 0.5],
    ['a tie of store and process', time(0, 500), work(1000, 500), 'store', 0.5],
    ['nothing moved, whatever the thread did', time(0, 0), work(1000, 900), 'none', 0],
    ['nothing but hashing', time(0, 0, 5), work(10, 5), 'process', 1],
    ['no time at all for the whole', time(3, 1), work(0, 0), 'host', 0.75],
    ['more work than time, by reading two clocks', time(3, 1), work(10, 10.1), 'process', 1],
  ])('is told: %s', (_, times, thread, slowSide, share) => {
    expect(slowSideOf(times, thread)).toEqual({ slowSide, share });
  });
});
