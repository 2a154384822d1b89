import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { type Disk, memoryDisk } from '../../src/disk/index.ts';
import { type NbdServerOptions, serveNbd } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';
import { chunk, simple, u16, u32, u64 } from './fake-server.ts';

const SIZE = 2 * 1024 * 1024;
const bytes = patterned(SIZE);

/** A client that sends bytes and expects bytes. */
async function client(options: NbdServerOptions, disk: Disk = memoryDisk(bytes)) {
  const server = await serveNbd({ disk }, options);
  const socket = connect(server.port, server.address);
  await once(socket, 'connect');
  socket.on('error', () => {});
  const iterator = socket.iterator({ destroyOnReturn: false });
  let held = Buffer.alloc(0);
  const fill = async (): Promise<boolean> => {
    const { value, done } = await iterator.next().catch(() => ({ value: undefined, done: true }));
    if (done !== true) held = Buffer.concat([held, value as Buffer]);
    return done !== true;
  };
  return {
    send: (...parts: Buffer[]) => void socket.write(Buffer.concat(parts)),
    async expect(...parts: Buffer[]) {
      const expected = Buffer.concat(parts);
      while (held.length < expected.length && (await fill()));
      expect(held.subarray(0, Math.min(expected.length, 64)).toString('hex')).toBe(
        expected.subarray(0, 64).toString('hex'),
      );
      expect(Buffer.compare(held.subarray(0, expected.length), expected)).toBe(0);
      held = held.subarray(expected.length);
    },
    /** Nothing more comes, and the server closes. */
    async closed() {
      while (await fill());
      expect(held.toString('hex')).toBe('');
    },
    /** Passes over an option's error, whatever its text; returns its type without bit 31. */
    async refusal(option: number): Promise<number> {
      while (held.length < 20 && (await fill()));
      expect(held.readBigUInt64BE(0)).toBe(0x3e889045565a9n);
      expect(held.readUInt32BE(8)).toBe(option);
      const [type, length] = [held.readUInt32BE(12), held.readUInt32BE(16)];
      while (held.length < 20 + length && (await fill()));
      held = held.subarray(20 + length);
      return type - 0x80000000;
    },
    async [Symbol.asyncDispose]() {
      socket.destroy();
      await server.close();
    },
  };
}

const GREETING = Buffer.from('NBDMAGICIHAVEOPT');
const option = (number: number, data: Buffer = Buffer.alloc(0)) =>
  Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.length), data]);
const reply = (number: number, type: number, data: Buffer = Buffer.alloc(0)) =>
  Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(number), u32(type), u32(data.length), data]);
const cookie = Buffer.from('00112233aabbccdd', 'hex');
const request = (type: number, offset: number | bigint, length: number, flags = 0) =>
  Buffer.concat([Buffer.from('25609513', 'hex'), u16(flags), u16(type), cookie, u64(BigInt(offset)), u32(length)]);
const error = (number: number) => 0x80000000 + number;

describe('XenServer, to the byte', () => {
  const plain: NbdServerOptions = { personality: 'xenserver' };
  const opened = async () => {
    const peer = await client(plain);
    await peer.expect(GREETING, u16(1));
    peer.send(u32(1), option(1, Buffer.from('disk')));
    await peer.expect(u64(BigInt(SIZE)), u16(3), Buffer.alloc(124));
    return peer;
  };

  test('options', async () => {
    await using peer = await client(plain);
    await peer.expect(GREETING, u16(1));
    peer.send(u32(1));
    for (const [number, answer] of [
      [3, 2],
      [5, 2],
      [6, 1],
      [7, 1],
      [8, 1],
      [9, 1],
      [10, 1],
      [99, 1],
    ] as const) {
      peer.send(option(number, Buffer.from('some data')));
      await peer.expect(reply(number, error(answer)));
    }
    peer.send(option(2));
    await peer.expect(reply(2, 1));
    await peer.closed();
  });

  test('where TLS is forced', async () => {
    const forced: NbdServerOptions = { personality: 'xenserver', mode: () => 'tls' };
    for (const number of [1, 2]) {
      await using peer = await client(forced);
      await peer.expect(GREETING, u16(1));
      peer.send(u32(1), option(3));
      await peer.expect(reply(3, error(5)));
      peer.send(option(number));
      await peer.closed();
    }
    await using old = await client(forced);
    await old.expect(GREETING, u16(1));
    old.send(u32(0));
    await old.closed();
  });

  test('reads, in order, and a goodbye', async () => {
    await using peer = await opened();
    peer.send(request(0, 0, 1024 * 1024 + 512), request(0, 512, 512));
    await peer.expect(simple(0, cookie), Buffer.from(bytes.subarray(0, 1024 * 1024 + 512)));
    await peer.expect(simple(0, cookie), Buffer.from(bytes.subarray(512, 1024)));
    peer.send(request(2, 0, 0));
    await peer.closed();
  });

  test.each([
    ['a write', request(1, 0, 512), 1],
    ['a flush', request(3, 0, 0), 22],
    ['a trim', request(4, 0, 512), 22],
    ['a block status', request(7, 0, 512), 22],
    ['a read with a flag', request(0, 0, 512, 4), 22],
    ['a misaligned offset', request(0, 1, 512), 22],
    ['a misaligned length', request(0, 0, 511), 22],
  ])('%s is answered with an error, and then with the end', async (_, bad, errno) => {
    await using peer = await opened();
    peer.send(bad);
    await peer.expect(simple(errno, cookie));
    await peer.closed();
  });

  test('a read past the end: success, some data, and the end', async () => {
    await using peer = await opened();
    peer.send(request(0, SIZE - 512 * 1024, 1024 * 1024));
    await peer.expect(simple(0, cookie), Buffer.from(bytes.subarray(SIZE - 512 * 1024)));
    await peer.closed();
  });
});

describe('standard, to the byte', () => {
  const name = Buffer.concat([u32(4), Buffer.from('disk')]);
  const go = async (disk?: Disk, options: NbdServerOptions = { readOnly: true }) => {
    const peer = await client(options, disk);
    await peer.expect(GREETING, u16(3));
    peer.send(u32(3), option(8));
    await peer.expect(reply(8, 1));
    peer.send(option(10, Buffer.concat([name, u32(1), u32(15), Buffer.from('base:allocation')])));
    await peer.expect(reply(10, 4, Buffer.concat([u32(1), Buffer.from('base:allocation')])), reply(10, 1));
    peer.send(option(7, Buffer.concat([name, u16(0)])));
    const flags = options.readOnly === true ? 0x58f : 0x5cd;
    await peer.expect(reply(7, 3, Buffer.concat([u16(0), u64(BigInt(SIZE)), u16(flags)])), reply(7, 1));
    return peer;
  };

  test('options that are wrong leave the client in step', async () => {
    await using peer = await client({});
    await peer.expect(GREETING, u16(3));
    peer.send(u32(3));
    for (const [number, data, answer] of [
      [99, Buffer.alloc(1000), 1],
      [4, Buffer.alloc(0), 1],
      [11, Buffer.alloc(0), 1], // extended headers
      [3, Buffer.alloc(1), 3],
      [5, Buffer.alloc(0), 2],
      [8, Buffer.alloc(1), 3],
      [10, name, 3],
      [10, Buffer.concat([name, u32(0)]), 3],
      [10, Buffer.concat([name, u32(0xffffffff)]), 3],
      [7, Buffer.alloc(0), 3],
      [7, Buffer.concat([u32(0xffffffff), u16(0)]), 3],
      [7, Buffer.concat([name, u16(2), u16(0)]), 3],
      [7, Buffer.concat([u32(2), Buffer.from('no'), u16(0)]), 6],
    ] as const) {
      peer.send(option(number, data));
      expect(await peer.refusal(number), `option ${number}`).toBe(answer);
    }
    peer.send(option(6, Buffer.concat([name, u16(0)])));
    await peer.expect(reply(6, 3, Buffer.concat([u16(0), u64(BigInt(SIZE)), u16(0x54d)])), reply(6, 1));
    peer.send(option(2));
    await peer.expect(reply(2, 1));
    await peer.closed();
  });

  test.each([
    ['unknown client flags', Buffer.from('00000005', 'hex')],
    ['an option with a wrong magic', Buffer.concat([u32(1), Buffer.alloc(16)])],
    ['an option of four gigabytes', Buffer.concat([u32(1), Buffer.from('IHAVEOPT'), u32(7), u32(0xffffffff)])],
    ['an option without fixed newstyle', Buffer.concat([u32(0), option(3)])],
    ['EXPORT_NAME of what is not there', Buffer.concat([u32(1), option(1, Buffer.from('no'))])],
  ])('%s: closed', async (_, wrong) => {
    await using peer = await client({});
    await peer.expect(GREETING, u16(3));
    peer.send(wrong);
    await peer.closed();
  });

  test('EXPORT_NAME, with and without padding', async () => {
    for (const [flags, padding] of [
      [1, 124],
      [3, 0],
    ] as const) {
      await using peer = await client({ readOnly: true });
      await peer.expect(GREETING, u16(3));
      peer.send(u32(flags), option(1, Buffer.from('disk')));
      await peer.expect(u64(BigInt(SIZE)), u16(0x50f), Buffer.alloc(padding));
      peer.send(request(0, 7, 9));
      await peer.expect(simple(0, cookie), Buffer.from(bytes.subarray(7, 16)));
    }
  });

  test('requests that are wrong, and right ones after them', async () => {
    await using peer = await go();
    const failed = (errno: number) => chunk(1, 0x8001, cookie, u32(errno), u16(0));
    for (const [wrong, errno] of [
      [Buffer.concat([request(1, 0, 512), Buffer.alloc(512)]), 1],
      [request(4, 0, 512), 1],
      [request(6, 0, 512), 1],
      [request(99, 0, 512), 22],
      [request(0, SIZE, 1), 22],
      [request(0, 0, 0), 22],
      [request(0, 2n ** 64n - 1n, 512), 22],
      [request(0, 0, 0xffffffff), 22],
      [request(0, 0, 512, 0x100), 22],
    ] as const) {
      peer.send(wrong);
      await peer.expect(failed(errno));
    }
    peer.send(request(0, 100, 200));
    await peer.expect(chunk(1, 1, cookie, u64(100n), Buffer.from(bytes.subarray(100, 300))));
    peer.send(request(7, 0, SIZE));
    await peer.expect(chunk(1, 5, cookie, u32(1), u32(SIZE), u32(0)));
    peer.send(request(2, 0, 0));
    await peer.closed();
  });

  test('holes are told as such, unless the client forbids it', async () => {
    const holey = patterned(SIZE).fill(0, 65536, 131072);
    await using peer = await go(memoryDisk(holey));
    peer.send(request(0, 65536 - 16, 65536 + 32));
    await peer.expect(
      chunk(0, 1, cookie, u64(65520n), Buffer.from(holey.subarray(65520, 65536))),
      chunk(0, 2, cookie, u64(65536n), u32(65536)),
      chunk(1, 1, cookie, u64(131072n), Buffer.from(holey.subarray(131072, 131088))),
    );
    peer.send(request(0, 65536, 512, 4));
    await peer.expect(chunk(1, 1, cookie, u64(65536n), Buffer.alloc(512)));
  });

  test('a disk that fails is an error, never a success', async () => {
    const failing: Disk = {
      ...memoryDisk(bytes),
      readInto: (_, offset) =>
        offset === 0 ? Promise.resolve() : Promise.reject(new Error('OpaqueRef:secret-secret')),
    };
    await using peer = await go(failing, { readOnly: true });
    peer.send(request(0, 512, 512));
    const text = Buffer.from('the disk behind the export failed');
    await peer.expect(chunk(1, 0x8001, cookie, u32(5), u16(text.length), text));
    peer.send(request(0, 0, 512, 4));
    await peer.expect(chunk(1, 1, cookie, u64(0n), Buffer.alloc(512)));
  });
});
