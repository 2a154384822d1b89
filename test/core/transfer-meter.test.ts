import { describe, expect, test } from 'vitest';
import { systemStopwatch, TransferMeter } from '../../src/core/index.ts';
import { type ManualStopwatch, manualStopwatch } from '../support/manual-stopwatch.ts';
import { toArray } from '../support/to-array.ts';

/** Three chunks, each of which takes 10 ms to come; 3 ms more until it is known that there are no others. */
async function* slowly(stopwatch: ManualStopwatch): AsyncGenerator<number, void> {
  for (let chunk = 0; chunk < 3; chunk++) {
    stopwatch.wait(10);
    yield chunk;
  }
  stopwatch.wait(3);
}

/** Has each chunk for 100 ms, and 50 ms more to do at the end. */
async function take(stopwatch: ManualStopwatch, chunks: AsyncIterable<number>): Promise<number> {
  let count = 0;
  for await (const _ of chunks) {
    stopwatch.wait(100);
    count++;
  }
  stopwatch.wait(50);
  return count;
}

describe('a meter', () => {
  test('tells the wait for a host that sends from that for a store that takes', async () => {
    const stopwatch = manualStopwatch();
    const meter = new TransferMeter('host', stopwatch);
    stopwatch.wait(1000); // before it begins
    expect(await meter.untilDone(take(stopwatch, meter.through(slowly(stopwatch))))).toBe(3);
    stopwatch.wait(1000); // when it is over
    expect(meter.time).toEqual({ hostMs: 33, storeMs: 350, hashMs: 0 });
  });

  test('tells the wait for a store that gives from that for a host that takes', async () => {
    const stopwatch = manualStopwatch();
    const meter = new TransferMeter('store', stopwatch);
    await meter.untilDone(take(stopwatch, meter.through(slowly(stopwatch))));
    expect(meter.time).toEqual({ hostMs: 350, storeMs: 33, hashMs: 0 });
  });

  test('takes what was hashed off what the store took, and off nothing else', async () => {
    const stopwatch = manualStopwatch();
    const meter = new TransferMeter('host', stopwatch);
    meter.onHashed(120.4);
    meter.onHashed(60);
    await meter.untilDone(take(stopwatch, meter.through(slowly(stopwatch))));
    expect(meter.time).toEqual({ hostMs: 33, storeMs: 170, hashMs: 180 });
    meter.onHashed(1000);
    expect(meter.time).toMatchObject({ hostMs: 33, storeMs: 0 });
  });

  test('has measured until then where the source fails, and where the consumer does', async () => {
    const stopwatch = manualStopwatch();
    const lost = new Error('lost');
    async function* losing(): AsyncGenerator<number, void> {
      stopwatch.wait(10);
      yield 1;
      stopwatch.wait(20);
      throw lost;
    }
    const one = new TransferMeter('host', stopwatch);
    await expect(one.untilDone(take(stopwatch, one.through(losing())))).rejects.toBe(lost);
    expect(one.time).toEqual({ hostMs: 30, storeMs: 100, hashMs: 0 });

    const full = new Error('full');
    const failing = async (chunks: AsyncIterable<number>) => {
      for await (const _ of chunks) {
        stopwatch.wait(7);
        throw full;
      }
    };
    let ended = false;
    async function* watched(): AsyncGenerator<number, void> {
      try {
        yield* slowly(stopwatch);
      } finally {
        ended = true;
      }
    }
    const other = new TransferMeter('host', stopwatch);
    await expect(other.untilDone(failing(other.through(watched())))).rejects.toBe(full);
    expect(other.time).toEqual({ hostMs: 10, storeMs: 7, hashMs: 0 });
    expect(ended).toBe(true);
  });

  test('passes every chunk on, and tells when each was taken', async () => {
    const stopwatch = manualStopwatch();
    const taken: string[] = [];
    const chunks = new TransferMeter('host', stopwatch).through(slowly(stopwatch), (chunk) => taken.push(`${chunk}`));
    expect((await chunks.next()).value).toBe(0);
    expect(taken).toEqual([]);
    expect(await toArray(chunks)).toEqual([1, 2]);
    expect(taken).toEqual(['0', '1', '2']);
  });
});

test("the thread's own stopwatch goes on, and works at most all the time", async () => {
  await new Promise(setImmediate); // the event loop has begun
  const [now, busy] = [systemStopwatch.now(), systemStopwatch.busy()];
  while (systemStopwatch.busy() === busy) Math.random();
  const worked = systemStopwatch.busy() - busy;
  expect(worked).toBeGreaterThan(0);
  expect(systemStopwatch.now() - now).toBeGreaterThanOrEqual(worked);
});
