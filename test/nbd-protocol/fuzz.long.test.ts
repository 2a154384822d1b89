import { once } from 'node:events';
import { connect } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, NbdError, type NbdServerOptions, serveNbd } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';
import { toArray } from '../support/to-array.ts';
import { ACK, chunk, fakeServer, optionReply, u16, u32, u64 } from './fake-server.ts';

const MIB = 1024 * 1024;
const SIZE = 65536;
const bytes = Buffer.from(patterned(SIZE));

/** Some bytes of a message changed, some left out: what a broken or hostile peer may send. */
const damage = fc.array(
  fc.record({
    at: fc.nat(),
    kind: fc.constantFrom('flip', 'zero', 'ones', 'drop'),
    length: fc.integer({ min: 1, max: 8 }),
  }),
  { minLength: 1, maxLength: 3 },
);
type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function damaged(message: Buffer, list: Damage): Buffer {
  let result = Buffer.from(message);
  for (const { at, kind, length } of list) {
    const start = at % (Math.min(result.length, 64) + 1); // headers are where it hurts
    const end = Math.min(start + length, result.length);
    if (kind === 'drop') result = Buffer.concat([result.subarray(0, start), result.subarray(end)]);
    else for (let i = start; i < end; i++) result[i] = kind === 'zero' ? 0 : kind === 'ones' ? 0xff : result[i]! ^ 0x15;
  }
  return result;
}

/** So many cases are tried at once: most of their time is waiting. */
const AT_ONCE = 10;
const cases = (victims: number) =>
  fc.array(fc.tuple(fc.nat({ max: victims - 1 }), damage), { minLength: AT_ONCE, maxLength: AT_ONCE });

/** Runs all to their ends, so that none disturbs the next cases, and then fails as the first did. */
async function allOf(work: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work)) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Memory of the process, looked at while `work` runs, must not grow beyond `limit` bytes more than it had. */
async function withinMemory(limit: number, work: () => Promise<void>): Promise<void> {
  const before = process.memoryUsage().rss;
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 20);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  expect(most - before).toBeLessThan(limit);
}

test('whatever a server says, the client ends with the right bytes or with an error of its own', async () => {
  const timeouts = { greetingMs: 50, optionMs: 50, exportMs: 50, stallMs: 50, disconnectMs: 50 };
  const talk = async (victim: number, list: Damage) => {
    let index = 0;
    await using server = await fakeServer(async (peer) => {
      const send = (message: Buffer) => peer.send(index++ === victim ? damaged(message, list) : message);
      send(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]));
      await peer.read(4);
      for (;;) {
        const { option } = await peer.option();
        if (option === 8) send(optionReply(8, ACK));
        if (option === 10) {
          const context = Buffer.concat([u32(7), Buffer.from('base:allocation')]);
          send(Buffer.concat([optionReply(10, 4, context), optionReply(10, ACK)]));
        }
        if (option !== 7) continue;
        const info = Buffer.concat([u16(0), u64(BigInt(SIZE)), u16(0x8f)]);
        send(Buffer.concat([optionReply(7, 3, info), optionReply(7, ACK)]));
        break;
      }
      for (;;) {
        const { type, cookie, offset, length } = await peer.request();
        if (type === 2) return void peer.socket.end();
        const at = Number(offset);
        if (type === 7) send(chunk(1, 5, cookie, u32(7), u32(length), u32(0)));
        else send(chunk(1, 1, cookie, u64(offset), bytes.subarray(at, at + length)));
      }
    });
    try {
      const disk = await connectNbd(server.uri, { timeouts, reconnect: { tries: 0 } });
      try {
        const length = Math.min(disk.size, SIZE); // a damaged size may be huge, and asking for all of it endless
        await toArray(disk.extents({ length }));
        const target = new Uint8Array(length);
        await disk.readInto(target, 0);
        // Damage within the data itself cannot be seen; what was left out, or came from elsewhere, can.
        expect(Buffer.compare(target.subarray(128), bytes.subarray(128, target.byteLength))).toBe(0);
      } finally {
        await disk.close();
      }
    } catch (error) {
      if (!(error instanceof NbdError)) throw error;
    }
  };
  const property = fc.asyncProperty(cases(8), (all) => allOf(all.map((one) => talk(...one))));
  await withinMemory(512 * MIB, () => fc.assert(property, { numRuns: 10_000 / AT_ONCE }));
}, 300_000);

test('whatever a client says, the server goes on serving', async () => {
  const option = (number: number, data: Buffer) =>
    Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.length), data]);
  const request = (type: number, offset: number, length: number) =>
    Buffer.concat([
      Buffer.from('25609513', 'hex'),
      u16(0),
      u16(type),
      Buffer.alloc(8, 1),
      u64(BigInt(offset)),
      u32(length),
    ]);
  const name = Buffer.concat([u32(4), Buffer.from('disk')]);
  const contexts = Buffer.concat([name, u32(1), u32(15), Buffer.from('base:allocation')]);
  const talk = [
    u32(3),
    option(8, Buffer.alloc(0)),
    option(10, contexts),
    option(7, Buffer.concat([name, u16(1), u16(3)])),
    request(0, 0, 4096),
    request(7, 0, SIZE),
    request(1, 0, 16),
    Buffer.alloc(16),
    request(2, 0, 0),
  ];
  for (const personality of ['standard', 'xenserver'] satisfies NbdServerOptions['personality'][]) {
    await using server = await serveNbd(
      { disk: memoryDisk(bytes) },
      { personality, readOnly: true, handshakeMs: 1000 },
    );
    const say = async (victim: number, list: Damage) => {
      const socket = connect(server.port, server.address);
      socket.on('error', () => {});
      await once(socket, 'connect');
      socket.resume();
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.end(Buffer.concat(talk.map((part, index) => (index === victim ? damaged(part, list) : part))));
      await closed;
    };
    const property = fc.asyncProperty(cases(talk.length), (all) => allOf(all.map((one) => say(...one))));
    await withinMemory(1024 * MIB, () => fc.assert(property, { numRuns: 5000 / AT_ONCE }));
    await using disk = await connectNbd(server.uri, { profile: personality });
    const target = new Uint8Array(SIZE);
    await disk.readInto(target, 0);
    expect(Buffer.compare(target, bytes)).toBe(0);
  }
}, 300_000);
