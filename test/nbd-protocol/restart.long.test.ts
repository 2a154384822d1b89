import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Disk, readBlocks } from '../../src/disk/index.ts';
import { connectNbd, NbdError, type NbdOptions, serveNbd } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { nbdkit } from './real-servers.ts';

const MIB = 1024 * 1024;
const SIZE = 1024 * MIB;

/** What nbdkit's pattern plugin serves: every eight bytes hold their own offset. */
function fillPattern(target: Uint8Array, offset: number): void {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const high = Math.floor(offset / 2 ** 32); // all of a range lies within 4 GiB
  for (let at = 0; at < target.byteLength; at += 8) {
    view.setUint32(at, high);
    view.setUint32(at + 4, offset + at);
  }
}

/** Reads all of the disk in order; `onMiB` is told after each of its blocks, which is when servers get killed. */
async function hashOf(disk: Disk, onMiB: (done: number) => Promise<void> | void = () => {}): Promise<string> {
  const hash = createHash('sha256');
  let done = 0;
  for await (const { data, offset } of readBlocks(disk, { blockSize: MIB, readAhead: 8 })) {
    expect(offset).toBe(done * MIB); // nothing is left out, as nothing in the pattern is zero but its first bytes
    hash.update(data);
    await onMiB(++done);
  }
  return hash.digest('hex');
}

const patternDisk: Disk = {
  size: SIZE,
  async *extents({ offset = 0, length = SIZE - offset } = {}) {
    yield { offset, length, kind: 'data' as const };
  },
  readInto: async (target, offset) => fillPattern(target, offset),
  close: async () => {},
  [Symbol.asyncDispose]: async () => {},
};

let expected: string;
beforeAll(async () => {
  expected = await hashOf(patternDisk);
}, 60_000);

/** Patience for a server that comes again, and none for one that does not. */
const options = {
  connections: 4,
  timeouts: { stallMs: 500, connectMs: 2000, greetingMs: 2000, disconnectMs: 500 },
  reconnect: { delayMs: 50, maxDelayMs: 200, tries: 20 },
} as const satisfies NbdOptions;

describe.runIf(hasTool('nbdkit'))('1 GiB from a server that does not hold', () => {
  test('killed three times, and started again: the copy is right', async () => {
    let server = await nbdkit(['pattern', `${SIZE}`], { tcp: true });
    try {
      const { port } = server;
      await using disk = await connectNbd(server.uri, options);
      const copy = await hashOf(disk, async (done) => {
        if (done % 256 !== 100 || done > 700) return;
        await server[Symbol.asyncDispose](); // SIGKILL, with eight reads under way
        server = await nbdkit(['pattern', `${SIZE}`], { tcp: port });
      });
      expect(copy).toBe(expected);
    } finally {
      await server[Symbol.asyncDispose]();
    }
  });

  test('stopped for longer than the stall timer, and let go on: the copy is right', async () => {
    // One thread for each connection: with more, nbdkit 1.32 aborts when several answers meet a client that has gone.
    await using server = await nbdkit(['-t', '1', 'pattern', `${SIZE}`], { tcp: true });
    await using disk = await connectNbd(server.uri, options);
    let stops = 0;
    const copy = await hashOf(disk, (done) => {
      if (done % 256 !== 100 || done > 700) return;
      stops++;
      server.kill('SIGSTOP');
      void delay(800).then(() => server.kill('SIGCONT'));
    });
    expect(stops).toBe(3);
    expect(copy).toBe(expected);
  });

  test.each([
    ['SIGKILL', ['NBD_CONNECT_FAILED', 'NBD_CONNECTION_LOST']],
    ['SIGTERM', ['NBD_CONNECT_FAILED', 'NBD_CONNECTION_LOST', 'NBD_SHUTDOWN']],
    ['SIGSTOP', ['NBD_STALLED', 'NBD_TIMEOUT']],
  ] as const)('%s for good: an error with a name, within the timers', async (signal, codes) => {
    await using server = await nbdkit(['pattern', `${SIZE}`], { tcp: true });
    const reconnect = { delayMs: 10, tries: 3 };
    await using disk = await connectNbd(server.uri, { ...options, reconnect });
    const failure = await hashOf(disk, (done) => {
      if (done === 100) server.kill(signal);
    }).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(NbdError);
    expect(codes).toContain((failure as NbdError).code);
    expect(failure).toMatchObject({ retryable: true });
  });
});

test('our own server, closed and opened again within 1 GiB: the copy is right', async () => {
  let server = await serveNbd({ disk: patternDisk });
  try {
    const { port } = server;
    await using disk = await connectNbd(server.uri, options);
    const copy = await hashOf(disk, async (done) => {
      if (done % 256 !== 100 || done > 700) return;
      await server.close(); // what is under way is told so, and asked again
      server = await serveNbd({ disk: patternDisk }, { port });
    });
    expect(copy).toBe(expected);
  } finally {
    await server.close();
  }
});
