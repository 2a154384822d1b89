import { describe, expect, test } from 'vitest';
import { type Disk, memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, serveNbd } from '../../src/nbd-protocol/index.ts';
import { heldDisk } from '../support/disks.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';

const KIB = 1024;
const until = async (reached: () => boolean) => {
  while (!reached()) await new Promise((resolve) => setImmediate(resolve));
};

describe('a server that is closed', () => {
  test('answers what is under way with ESHUTDOWN, and leaves when its clients have', async () => {
    const held = heldDisk(64 * KIB, 4 * KIB);
    const server = await serveNbd({ disk: held }, { clock: manualClock(), shutdownMs: 60_000 });
    const disk = await connectNbd(server.uri, { reconnect: { tries: 0 } });
    const reading = disk.readInto(new Uint8Array(4 * KIB), 0).catch((error: unknown) => error);
    await until(() => held.running === 1);
    const closed = server.close(); // its clock stands still: only the client's goodbye can end it
    expect(await reading).toMatchObject({ code: 'NBD_SHUTDOWN', errno: 108, retryable: true });
    await disk.close();
    await closed;
    expect(held.running).toBe(0);
  });

  test('answers new requests with ESHUTDOWN, and ends idle connections when its time is up', async () => {
    const clock = manualClock();
    const memory = memoryDisk(patterned(64 * KIB));
    const deaf: Disk = {
      ...memory, // but to signals: the refusal is the server's own
      extents: ({ offset, length } = {}) => memory.extents({ offset, length }),
      readInto: (target, offset) => memory.readInto(target, offset),
    };
    const server = await serveNbd({ disk: deaf }, { clock, shutdownMs: 777 });
    const disk = await connectNbd(server.uri, { reconnect: { tries: 0 } });
    const idle = await connectNbd(server.uri, { reconnect: { tries: 0 } });
    const closed = server.close();
    await until(() => clock.sleeps.includes(777));
    const refused = disk.readInto(new Uint8Array(KIB), 0);
    await expect(refused).rejects.toMatchObject({ code: 'NBD_SHUTDOWN', errno: 108 });
    await clock.advance(777);
    await closed;
    await until(() => idle.connectionCount === 0);
    await Promise.all([disk.close(), idle.close()]);
  });

  test('refuses who is still negotiating', async () => {
    const clock = manualClock();
    let closed: Promise<void> | undefined;
    const server = await serveNbd(
      { disk: memoryDisk(patterned(KIB)) },
      {
        clock,
        shutdownMs: 777,
        hooks: {
          onStep({ kind }) {
            if (kind === 'option') closed ??= server.close();
            return undefined;
          },
        },
      },
    );
    await expect(connectNbd(server.uri)).rejects.toMatchObject({ code: 'NBD_SHUTDOWN', retryable: true });
    await closed; // the client said goodbye, and nobody else was there
  });

  test('without a time, or as XenServer, closes without a word', async () => {
    for (const options of [{ shutdownMs: 0 }, { personality: 'xenserver', shutdownMs: 60_000 }] as const) {
      const held = heldDisk(64 * KIB, 4 * KIB);
      const server = await serveNbd({ disk: held }, options);
      const disk = await connectNbd(server.uri, { profile: options.personality, reconnect: { tries: 0 } });
      const reading = disk.readInto(new Uint8Array(4 * KIB), 0).catch((error: unknown) => error);
      await until(() => held.running === 1);
      await server.close();
      expect(await reading).toMatchObject({ code: 'NBD_CONNECTION_LOST', retryable: true });
      await disk.close();
    }
  });
});
