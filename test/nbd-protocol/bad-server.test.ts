import { describe, expect, test } from 'vitest';
import { connectNbd, NbdError, type NbdOptions } from '../../src/nbd-protocol/index.ts';
import { within } from '../../src/nbd-protocol/transport.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { toArray } from '../support/to-array.ts';
import { ACK, chunk, type FakePeer, fakeServer, optionReply, simple, UNSUP, u16, u32, u64 } from './fake-server.ts';

const SIZE = 1024 * 1024;
const once: NbdOptions = { reconnect: { tries: 0 } };

async function failureOf(work: Promise<unknown>): Promise<NbdError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(NbdError);
  return error as NbdError;
}

/** A server that gets to its first request, and then does as told. */
function afterGo(structured: boolean, then: (peer: FakePeer, connection: number) => Promise<void>) {
  return fakeServer(async (peer, connection) => {
    await peer.greet();
    await peer.negotiate({ structured, size: BigInt(SIZE) });
    await then(peer, connection);
  });
}

const data = patterned(4096);
const half = Buffer.from(data.subarray(0, 2048));
const whole = Buffer.from(data);
const infoExport = optionReply(7, 3, Buffer.concat([u16(0), u64(BigInt(SIZE)), u16(3)]));

describe('row 65: a broken handshake is an error at once', () => {
  const greeted = (then: (peer: FakePeer) => Promise<void>) => async (peer: FakePeer) => {
    await peer.greet();
    await then(peer);
  };
  const atGo = (reply: Buffer) =>
    greeted(async (peer) => {
      for (;;) {
        const { option } = await peer.option();
        peer.send(option === 7 ? reply : optionReply(option, UNSUP));
      }
    });
  const scripts: [string, string, (peer: FakePeer) => Promise<void>][] = [
    ['bad magic', 'greeting', async (peer) => peer.send(Buffer.from('XBDMAGICIHAVEOPT'), u16(3))],
    ['bad style', 'greeting', async (peer) => peer.send(Buffer.from('NBDMAGICIHAVEOPX'), u16(3))],
    ['wrong option echoed', 'negotiation', greeted(async (peer) => peer.send(optionReply(9, ACK)))],
    ['bad magic of a reply', 'negotiation', greeted(async (peer) => peer.send('00'.repeat(20)))],
    ['ACK with a payload', 'negotiation', greeted(async (peer) => peer.send(optionReply(8, ACK, Buffer.alloc(1))))],
    ['unknown type of reply', 'negotiation', greeted(async (peer) => peer.send(optionReply(8, 77)))],
    [
      'length 0xffffffff',
      'negotiation',
      greeted(async (peer) => peer.send('0003e889045565a9', u32(8), u32(1), 'ffffffff')),
    ],
    ['GO without INFO_EXPORT', 'export', atGo(optionReply(7, ACK))],
    ['short INFO', 'export', atGo(Buffer.concat([optionReply(7, 3, Buffer.alloc(1)), optionReply(7, ACK)]))],
    ['transmission flags 0', 'export', atGo(Buffer.concat([optionReply(7, 3, Buffer.alloc(12)), optionReply(7, ACK)]))],
    [
      'a size beyond 2^53',
      'export',
      atGo(Buffer.concat([optionReply(7, 3, Buffer.concat([u16(0), u64(2n ** 53n), u16(3)])), optionReply(7, ACK)])),
    ],
    [
      'block size 0',
      'export',
      atGo(
        Buffer.concat([infoExport, optionReply(7, 3, Buffer.concat([u16(3), Buffer.alloc(12)])), optionReply(7, ACK)]),
      ),
    ],
    ['endless INFO', 'export', atGo(Buffer.concat(Array.from({ length: 100 }, () => infoExport)))],
  ];
  test.each(scripts)('%s', async (_, stage, script) => {
    await using server = await fakeServer(script);
    const error = await failureOf(connectNbd(server.uri, once));
    expect(error).toMatchObject({ code: 'NBD_PROTOCOL', stage, retryable: false });
  });

  test('an info type we do not know is passed over', async () => {
    const replies = [optionReply(7, 3, Buffer.concat([u16(0x7777), Buffer.alloc(9)])), infoExport, optionReply(7, ACK)];
    await using server = await fakeServer(atGo(Buffer.concat(replies)));
    const disk = await connectNbd(server.uri, { timeouts: { disconnectMs: 1 } });
    expect(disk.size).toBe(SIZE);
    await disk.close();
  });
});

describe('row 66: GO refused', () => {
  const refusing = (type: number) =>
    fakeServer(async (peer) => {
      const flags = await peer.greet();
      expect(flags).toEqual(Buffer.from([0, 0, 0, 3]));
      for (;;) {
        const { option, data: name } = await peer.option();
        if (option === 1) {
          expect(name.toString()).toBe('x');
          peer.send(u64(BigInt(SIZE)), u16(3));
          const { type: command } = await peer.request();
          expect(command).toBe(2);
          return void peer.socket.end();
        }
        peer.send(optionReply(option, option === 7 ? type : UNSUP));
        if (option === 2) return void peer.socket.end();
      }
    });

  test('ERR_UNSUP falls back to EXPORT_NAME', async () => {
    await using server = await refusing(UNSUP);
    const disk = await connectNbd(server.uri);
    expect(disk.size).toBe(SIZE);
    expect(disk.readOnly).toBe(true);
    await disk.close();
  });

  test.each([
    [0x800000ff, 'NBD_REFUSED'],
    [0x80000002, 'NBD_REFUSED'],
    [0x80000005, 'NBD_TLS_REQUIRED'],
    [0x80000006, 'NBD_EXPORT_UNKNOWN'],
    [0x80000007, 'NBD_SHUTDOWN'],
  ])('error 0x%s is told', async (type, code) => {
    await using server = await refusing(type);
    expect((await failureOf(connectNbd(server.uri))).code).toBe(code);
  });
});

test('row 67: bytes in clear behind STARTTLS are refused, not waited for', async () => {
  await using server = await fakeServer(async (peer) => {
    await peer.greet();
    expect((await peer.option()).option).toBe(5);
    peer.send(optionReply(5, ACK), optionReply(8, ACK));
  });
  const error = await failureOf(connectNbd({ host: '127.0.0.1', port: server.port, tls: { insecure: true } }));
  expect(error).toMatchObject({ code: 'NBD_PROTOCOL', stage: 'tls' });
});

test('a server without fixed newstyle is not spoken to where TLS is required', async () => {
  await using server = await fakeServer(async (peer) => {
    peer.send(Buffer.from('NBDMAGICIHAVEOPT'), u16(0));
    await expect(peer.read(1)).rejects.toThrow();
  });
  const error = await failureOf(connectNbd({ host: '127.0.0.1', port: server.port, tls: { insecure: true } }));
  expect(error).toMatchObject({ code: 'NBD_TLS_REFUSED', stage: 'greeting' });
});

async function readOne(structured: boolean, answer: (peer: FakePeer, cookie: Buffer) => void, options = once) {
  await using server = await afterGo(structured, async (peer) => {
    const { cookie, type } = await peer.request();
    expect(type).toBe(0);
    answer(peer, cookie);
    for (;;) {
      if ((await peer.request()).type === 2) return void peer.socket.end();
    }
  });
  const disk = await connectNbd(server.uri, { ...options, timeouts: { disconnectMs: 1000 } });
  const target = new Uint8Array(4096);
  try {
    await disk.readInto(target, 8192);
    return target;
  } finally {
    await disk.close();
  }
}

describe('row 68: simple replies', () => {
  test.each([
    ['wrong cookie', 'NBD_PROTOCOL', (peer: FakePeer) => peer.send(simple(0, Buffer.alloc(8, 9), whole))],
    ['bad magic', 'NBD_PROTOCOL', (peer: FakePeer, cookie: Buffer) => peer.send('deadbeef', u32(0), cookie, whole)],
    [
      'structured, unasked',
      'NBD_PROTOCOL',
      (peer: FakePeer, cookie: Buffer) => peer.send(chunk(1, 1, cookie, u64(8192n), whole)),
    ],
    [
      'half the data, then the end',
      'NBD_CONNECTION_LOST',
      (peer: FakePeer, cookie: Buffer) => {
        peer.send(simple(0, cookie, half));
        peer.socket.end();
      },
    ],
    ['errno 9999', 'NBD_REQUEST_FAILED', (peer: FakePeer, cookie: Buffer) => peer.send(simple(9999, cookie))],
  ])('%s', async (_, code, answer) => {
    const error = await failureOf(readOne(false, answer));
    expect(error.code).toBe(code);
    if (code === 'NBD_REQUEST_FAILED') expect(error.errno).toBe(22);
  });
});

const at = (offset: number) => u64(BigInt(8192 + offset));

describe('rows 69 and 70: structured replies that lie or break the rules', () => {
  const scripts: [string, (cookie: Buffer) => Buffer[]][] = [
    ['half the data and DONE', (cookie) => [chunk(1, 1, cookie, at(0), half)]],
    ['NONE only', (cookie) => [chunk(1, 0, cookie)]],
    ['a range twice', (cookie) => [chunk(0, 1, cookie, at(0), half), chunk(1, 1, cookie, at(0), half)]],
    ['before the request', (cookie) => [chunk(1, 1, cookie, at(-1), whole)]],
    ['past the request', (cookie) => [chunk(1, 1, cookie, at(2048), whole)]],
    ['far away', (cookie) => [chunk(1, 1, cookie, Buffer.alloc(8, 0xff), whole)]],
    ['a hole of size 0', (cookie) => [chunk(1, 2, cookie, at(0), u32(0))]],
    ['a hole past the request', (cookie) => [chunk(1, 2, cookie, at(1), u32(4096))]],
    ['a hole of another length', (cookie) => [chunk(1, 2, cookie, at(0), u32(4096), u32(0))]],
    ['errno 0', (cookie) => [chunk(1, 0x8001, cookie, u32(0), u16(0))]],
    ['a message longer than its chunk', (cookie) => [chunk(1, 0x8001, cookie, u32(5), u16(500), Buffer.alloc(3))]],
    ['an error chunk of 3 bytes', (cookie) => [chunk(1, 0x8001, cookie, Buffer.alloc(3))]],
    ['unknown type 0x33', (cookie) => [chunk(1, 0x33, cookie)]],
    ['length 0xffffffff', (cookie) => [Buffer.from('668e33ef00010001', 'hex'), cookie, u32(0xffffffff)]],
    ['a status for a read', (cookie) => [chunk(1, 5, cookie, u32(7), u32(4096), u32(0))]],
    ['a simple success', (cookie) => [simple(0, cookie, whole)]],
    ['NONE without DONE', (cookie) => [chunk(0, 0, cookie)]],
    ['data without a byte', (cookie) => [chunk(1, 1, cookie, at(0))]],
  ];
  test.each(scripts)('%s', async (_, answer) => {
    const error = await failureOf(readOne(true, (peer, cookie) => peer.send(...answer(cookie))));
    expect(error).toMatchObject({ code: 'NBD_PROTOCOL', stage: 'transmission' });
  });
});

describe('row 71: errors after which the connection lives', () => {
  test.each([
    ['unknown error type', 5, (cookie: Buffer) => [chunk(1, 0x8077, cookie, Buffer.alloc(6))]],
    ['EPERM with a message', 1, (cookie: Buffer) => [chunk(1, 0x8001, cookie, u32(1), u16(2), Buffer.from('no'))]],
    [
      'data, then ERROR_OFFSET',
      5,
      (cookie: Buffer) => [
        chunk(0, 1, cookie, at(0), half.subarray(0, 256)),
        chunk(1, 0x8002, cookie, u32(5), u16(0), at(256)),
      ],
    ],
  ])('%s', async (_, errno, answer) => {
    await using server = await afterGo(true, async (peer) => {
      for (;;) {
        const { cookie, type, offset, length } = await peer.request();
        if (type === 2) return void peer.socket.end();
        if (offset === 8192n) peer.send(...answer(cookie));
        else peer.send(chunk(1, 1, cookie, u64(offset), Buffer.alloc(length, 3)));
      }
    });
    await using disk = await connectNbd(server.uri);
    const error = await failureOf(disk.readInto(new Uint8Array(512), 8192));
    expect(error).toMatchObject({ code: 'NBD_REQUEST_FAILED', errno });
    const target = new Uint8Array(512);
    await disk.readInto(target, 0);
    expect(target).toEqual(new Uint8Array(512).fill(3));
    expect(server.connectionCount).toBe(1);
  });
});

describe('row 72: unusual, and right', () => {
  test('second half first, a hole, NONE with DONE, unknown flags', async () => {
    const target = await readOne(true, (peer, cookie) =>
      peer.send(
        chunk(0x8000, 1, cookie, at(2048), half),
        chunk(0, 2, cookie, at(0), u32(2048)),
        chunk(0x4001, 0, cookie),
      ),
    );
    expect(target.subarray(0, 2048)).toEqual(new Uint8Array(2048));
    expect(Buffer.compare(target.subarray(2048), half)).toBe(0);
  });

  test('byte by byte', async () => {
    await using server = await fakeServer(async (peer) => {
      const all = peer.send;
      const dribble = async (bytes: Buffer) => {
        for (const byte of bytes) {
          all([byte]);
          await new Promise((resolve) => setImmediate(resolve));
        }
      };
      await dribble(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]));
      await peer.read(4);
      for (;;) {
        const { option } = await peer.option();
        await dribble(
          option === 7
            ? Buffer.concat([infoExport, optionReply(7, ACK)])
            : optionReply(option, option === 8 ? ACK : UNSUP),
        );
        if (option === 7) break;
      }
      const { cookie, length } = await peer.request();
      await dribble(chunk(1, 1, cookie, at(0), Buffer.alloc(length, 5)));
      await peer.request();
      peer.socket.end();
    });
    await using disk = await connectNbd(server.uri);
    const target = new Uint8Array(512);
    await disk.readInto(target, 8192);
    expect(target).toEqual(new Uint8Array(512).fill(5));
  });
});

describe('row 73: block status that tells nothing usable', () => {
  const statusOf = async (payload: Buffer[]) => {
    await using server = await afterGo(true, async (peer) => {
      for (;;) {
        const { cookie, type } = await peer.request();
        if (type === 2) return void peer.socket.end();
        expect(type).toBe(7);
        peer.send(chunk(1, 5, cookie, ...payload));
      }
    });
    await using disk = await connectNbd(server.uri, once);
    return await toArray(disk.extents());
  };

  test('an extent of length 0, or half an extent: a broken protocol', async () => {
    expect((await failureOf(statusOf([u32(7), u32(0), u32(3)]))).code).toBe('NBD_PROTOCOL');
    expect((await failureOf(statusOf([u32(7), u32(0)]))).code).toBe('NBD_PROTOCOL');
    expect((await failureOf(statusOf([u32(7)]))).code).toBe('NBD_PROTOCOL');
  });

  test('another context only: all is data', async () => {
    expect(await statusOf([u32(8), u32(4096), u32(3)])).toEqual([{ offset: 0, length: SIZE, kind: 'data' }]);
  });

  test('more than asked is cut, less is asked on; a hole that is not zero is data', async () => {
    expect(await statusOf([u32(7), u32(0xffffffff), u32(3)])).toEqual([{ offset: 0, length: SIZE, kind: 'zero' }]);
    expect(await statusOf([u32(7), u32(65536), u32(1)])).toEqual([{ offset: 0, length: SIZE, kind: 'data' }]);
  });
});

describe('row 74: silence and ends', () => {
  test('a server that never greets, in its stage timer', async () => {
    const clock = manualClock();
    await using server = await fakeServer((peer) => peer.gone);
    const connecting = failureOf(connectNbd(server.uri, { clock }));
    await clock.untilSleeping(1);
    while (clock.sleeps.at(-1) !== 30_000) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(30_000);
    expect(await connecting).toMatchObject({ code: 'NBD_TIMEOUT', stage: 'greeting', retryable: true });
  });

  test('a server that takes up TLS and then says nothing, in its stage timer', async () => {
    const agreed = Promise.withResolvers<void>();
    await using server = await fakeServer(async (peer) => {
      await peer.greet();
      const { option } = await peer.option();
      peer.send(optionReply(option, ACK));
      agreed.resolve();
      await peer.gone;
    });
    const { port } = server;
    const timeouts = { tlsMs: 50 };
    const connecting = connectNbd({ host: '127.0.0.1', port, tls: { insecure: true }, timeouts });
    expect(await failureOf(connecting)).toMatchObject({ code: 'NBD_TIMEOUT', stage: 'tls', retryable: true });
    await agreed.promise;
  });

  test('a network that swallows the connection: the deadline ends the wait, though the socket closes without an error', async () => {
    const clock = manualClock();
    const destroyed: (Error | undefined)[] = [];
    const late = new Error('late');
    const transport = { destroy: (error?: Error) => void destroyed.push(error) };
    const waiting = within(transport, { clock, ms: 10_000, late: () => late }, () => new Promise<never>(() => {}));
    const rejected = expect(waiting).rejects.toBe(late);
    await clock.untilSleeping(1);
    await clock.advance(10_000);
    await rejected;
    expect(destroyed).toEqual([late]);
  });

  test('a server that never answers: the stall timer counts from the last byte', async () => {
    const clock = manualClock();
    const asked = Promise.withResolvers<void>();
    await using server = await afterGo(true, async (peer) => {
      await peer.request();
      asked.resolve();
      await peer.gone;
    });
    const disk = await connectNbd(server.uri, { ...once, clock });
    const reading = failureOf(disk.readInto(new Uint8Array(512), 0));
    await asked.promise;
    await clock.untilSleeping(1);
    await clock.advance(59_999);
    await clock.advance(1);
    expect(await reading).toMatchObject({ code: 'NBD_STALLED', retryable: true });
    await disk.close();
  });

  test('an answer after our abort is drained, and the next read is right', async () => {
    const asked = Promise.withResolvers<Buffer>();
    const aborted = Promise.withResolvers<void>();
    await using server = await afterGo(true, async (peer) => {
      const late = await peer.request();
      asked.resolve(late.cookie);
      await aborted.promise;
      peer.send(chunk(1, 1, late.cookie, u64(0n), whole));
      const next = await peer.request();
      peer.send(chunk(1, 1, next.cookie, u64(4096n), half, half));
      await peer.request();
      peer.socket.end();
    });
    await using disk = await connectNbd(server.uri);
    const controller = new AbortController();
    const lost = new Uint8Array(4096);
    const reading = disk.readInto(lost, 0, { signal: controller.signal });
    await asked.promise;
    controller.abort(new Error('enough'));
    await expect(reading).rejects.toThrow('enough');
    aborted.resolve();
    const target = new Uint8Array(4096);
    await disk.readInto(target, 4096);
    expect(Buffer.compare(target, Buffer.concat([half, half]))).toBe(0);
    expect(lost).toEqual(new Uint8Array(4096));
  });

  test('reads that are given up at once, one with half of its data here, all end', async () => {
    const data = Buffer.alloc(4096, 7);
    await using server = await afterGo(true, async (peer) => {
      const { cookie } = await peer.request();
      await peer.request();
      await peer.request();
      peer.send(chunk(1, 1, cookie, u64(0n), data).subarray(0, 1000)); // and no more
    });
    await using disk = await connectNbd(server.uri, { connections: 1, reconnect: { tries: 0 } });
    const controller = new AbortController();
    const targets = [0, 1, 2].map(() => new Uint8Array(4096));
    const reads = targets.map((target, i) => disk.readInto(target, i * 4096, { signal: controller.signal }));
    const ends = Promise.allSettled(reads);
    await expect.poll(() => targets[0]![0]).toBe(7);
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await ends).toEqual(reads.map(() => ({ status: 'rejected', reason })));
  });

  test.each([
    ['FIN', (peer: FakePeer) => void peer.socket.end()],
    ['RST', (peer: FakePeer) => void peer.socket.write('', () => peer.socket.resetAndDestroy())],
  ])('%s within a payload: read again over a new connection', async (_, cut) => {
    await using server = await afterGo(true, async (peer, connection) => {
      for (;;) {
        const { cookie, type, offset } = await peer.request();
        if (type === 2) return void peer.socket.end();
        const reply = chunk(1, 1, cookie, u64(offset), whole);
        if (connection > 0) peer.send(reply);
        else {
          peer.send(reply.subarray(0, 1000));
          return cut(peer);
        }
      }
    });
    await using disk = await connectNbd(server.uri, { reconnect: { delayMs: 1 } });
    const target = new Uint8Array(4096);
    await disk.readInto(target, 8192);
    expect(Buffer.compare(target, whole)).toBe(0);
    expect(server.connectionCount).toBe(2);
  });

  test('another size after reconnecting is another disk', async () => {
    await using server = await fakeServer(async (peer, connection) => {
      await peer.greet();
      await peer.negotiate({ structured: true, size: BigInt(SIZE + connection) });
      await peer.request();
      peer.socket.end();
    });
    await using disk = await connectNbd(server.uri, { reconnect: { delayMs: 1 } });
    const error = await failureOf(disk.readInto(new Uint8Array(512), 0));
    expect(error).toMatchObject({ code: 'NBD_EXPORT_CHANGED', retryable: false });
  });

  test('ESHUTDOWN: what is left is read elsewhere, and the old server is told goodbye', async () => {
    let goodbyes = 0;
    await using server = await afterGo(true, async (peer, connection) => {
      for (;;) {
        const { cookie, type, offset, length } = await peer.request();
        if (type === 2) {
          goodbyes++;
          return void peer.socket.end();
        }
        if (connection === 0 && offset > 0n) peer.send(chunk(1, 0x8001, cookie, u32(108), u16(0)));
        else peer.send(chunk(1, 1, cookie, u64(offset), Buffer.alloc(length, 1)));
      }
    });
    const disk = await connectNbd(server.uri, { requestSize: 256 * 1024, reconnect: { delayMs: 1 } });
    const target = new Uint8Array(SIZE);
    await disk.readInto(target, 0);
    expect(Buffer.compare(target, new Uint8Array(SIZE).fill(1))).toBe(0);
    await disk.close();
    expect(goodbyes).toBe(2);
    expect(server.connectionCount).toBe(2);
  });
});
