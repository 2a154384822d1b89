import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, NbdError, serveNbd } from '../../src/nbd-protocol/index.ts';
import { manualClock } from '../support/manual-clock.ts';

test('a lost connection is not tried to be replaced for longer than its budget', async () => {
  const clock = manualClock();
  const server = await serveNbd({ disk: memoryDisk(new Uint8Array(4096)) }, { shutdownMs: 0 });
  const reconnect = { tries: 1000, delayMs: 1000, maxDelayMs: 4000, totalMs: 20_000 };
  await using disk = await connectNbd(server.uri, { clock, reconnect });
  await server.close();
  const startedAt = clock.now();
  let failure: unknown;
  const reading = disk.readInto(new Uint8Array(512), 0).catch((error: unknown) => {
    failure = error;
  });
  while (failure === undefined) {
    await setImmediate(); // what the kernel has to say of the socket comes first
    await clock.advance(100);
  }
  await reading;
  expect(failure).toBeInstanceOf(NbdError);
  expect(failure).toMatchObject({ code: 'NBD_RECONNECT_TIMEOUT', retryable: true });
  expect((failure as NbdError).message).toMatch(
    /no new connection within 20000 ms and \d+ tries; the last failed with/,
  );
  expect((failure as NbdError).cause).toBeInstanceOf(NbdError);
  expect(clock.now() - startedAt).toBeLessThanOrEqual(21_000);
});
