import { expect } from 'vitest';
import { connectNbd, listNbdExports, type NbdOptions, type NbdServerOptions } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';
import { toArray } from '../support/to-array.ts';
import { ACK, chunk, optionReply, simple, u16, u32, u64 } from './fake-server.ts';

/** A whole conversation, byte for byte, that drives either end: the other one is a script. */
export interface Transcript {
  readonly name: string;
  /** Who sends what, in order. The server closes after the last. */
  readonly turns: readonly (readonly ['client' | 'server', ...Buffer[]])[];
  /** Makes our server say the server's part; it serves {@link content} as `disk`. */
  readonly server?: NbdServerOptions;
  /** Makes our client say the client's part, and checks what it learned. */
  client(target: NbdOptions): Promise<void>;
}

const KIB = 1024;
export const SIZE = 192 * KIB;

/** What is served: data with a hole of 64 KiB in its middle. */
export function content(): Uint8Array {
  return patterned(SIZE).fill(0, 64 * KIB, 128 * KIB);
}

const bytes = Buffer.from(content());
const none = Buffer.alloc(0);
const text = (value: string) => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
const option = (number: number, data: Buffer = none) =>
  Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.length), data]);
const refusal = (number: number, error: number, why: string) =>
  optionReply(number, 0x80000000 + error, Buffer.from(why));
/** The cookies of our client count from 1 within a connection; its goodbye has 0. */
const cookie = (count: number) => u64(BigInt(count));
const request = (count: number, type: number, offset: number, length: number, flags = 0) =>
  Buffer.concat([
    Buffer.from('25609513', 'hex'),
    u16(flags),
    u16(type),
    cookie(count),
    u64(BigInt(offset)),
    u32(length),
  ]);
const greeting = (flags: number) => Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(flags)]);
const goodbye = request(0, 2, 0, 0);

const context = Buffer.from('base:allocation');
const go = Buffer.concat([text('disk'), u16(1), u16(3)]);

/** Greeting, structured replies, base:allocation, GO. */
function opening(flags: number): Transcript['turns'] {
  return [
    ['server', greeting(3)],
    ['client', u32(3), option(8)],
    ['server', optionReply(8, ACK)],
    ['client', option(10, Buffer.concat([text('disk'), u32(1), text('base:allocation')]))],
    ['server', optionReply(10, 4, Buffer.concat([u32(1), context])), optionReply(10, ACK)],
    ['client', option(7, go)],
    [
      'server',
      optionReply(7, 3, Buffer.concat([u16(0), u64(BigInt(SIZE)), u16(flags)])),
      optionReply(7, 3, Buffer.concat([u16(3), u32(1), u32(64 * KIB), u32(32 * KIB * KIB)])),
      optionReply(7, ACK),
    ],
  ];
}

const READ_ONLY = 0x58f;
const WRITABLE = 0x5cd;

export const transcripts: readonly Transcript[] = [
  {
    name: 'reads with a hole, and the map',
    server: { readOnly: true },
    turns: [
      ...opening(READ_ONLY),
      ['client', request(1, 0, 100, 200)],
      ['server', chunk(1, 1, cookie(1), u64(100n), bytes.subarray(100, 300))],
      ['client', request(2, 0, 65520, 65568)],
      [
        'server',
        chunk(0, 1, cookie(2), u64(65520n), bytes.subarray(65520, 65536)),
        chunk(0, 2, cookie(2), u64(65536n), u32(65536)),
        chunk(1, 1, cookie(2), u64(131072n), bytes.subarray(131072, 131088)),
      ],
      ['client', request(3, 7, 0, SIZE)],
      ['server', chunk(1, 5, cookie(3), u32(1), u32(65536), u32(0), u32(65536), u32(3), u32(65536), u32(0))],
      ['client', goodbye],
    ],
    async client(target) {
      await using disk = await connectNbd(target);
      expect([disk.size, disk.readOnly, disk.hasExtents]).toEqual([SIZE, true, true]);
      for (const [offset, length] of [
        [100, 200],
        [65520, 65568],
      ] as const) {
        const read = new Uint8Array(length).fill(0xee);
        await disk.readInto(read, offset);
        expect(Buffer.compare(read, bytes.subarray(offset, offset + length))).toBe(0);
      }
      expect((await toArray(disk.extents())).map(({ kind }) => kind)).toEqual(['data', 'zero', 'data']);
    },
  },
  {
    name: 'writes, durable and not',
    turns: [
      ...opening(WRITABLE),
      ['client', request(1, 1, 4096, 512), bytes.subarray(0, 512)],
      ['server', simple(0, cookie(1))],
      ['client', request(2, 1, 8192, 512, 1), bytes.subarray(512, 1024)],
      ['server', simple(0, cookie(2))],
      ['client', request(3, 6, 512, 1024)],
      ['server', simple(0, cookie(3))],
      ['client', request(4, 3, 0, 0)],
      ['server', simple(0, cookie(4))],
      ['client', request(5, 5, 0, SIZE)],
      ['server', simple(0, cookie(5))],
      ['client', request(6, 0, 8192, 512, 0)],
      ['server', chunk(1, 1, cookie(6), u64(8192n), bytes.subarray(512, 1024))],
      ['client', goodbye],
    ],
    async client(target) {
      await using disk = await connectNbd(target);
      await disk.write(bytes.subarray(0, 512), 4096);
      await disk.write(bytes.subarray(512, 1024), 8192, { fua: true });
      await disk.writeZeroes(512, 1024);
      await disk.flush();
      await disk.cache(0, SIZE);
      const read = new Uint8Array(512);
      await disk.readInto(read, 8192);
      expect(Buffer.compare(read, bytes.subarray(512, 1024))).toBe(0);
    },
  },
  {
    name: 'a read that fails, and one after it',
    server: {
      readOnly: true,
      hooks: { onStep: (step) => (step.kind === 'request' && step.offset === 512 ? { errno: 1 } : undefined) },
    },
    turns: [
      ...opening(READ_ONLY),
      ['client', request(1, 0, 512, 512)],
      ['server', chunk(1, 0x8001, cookie(1), u32(1), u16(0))],
      ['client', request(2, 0, 1024, 512)],
      ['server', chunk(1, 1, cookie(2), u64(1024n), bytes.subarray(1024, 1536))],
      ['client', goodbye],
    ],
    async client(target) {
      await using disk = await connectNbd(target);
      const refused = disk.readInto(new Uint8Array(512), 512);
      await expect(refused).rejects.toMatchObject({ code: 'NBD_REQUEST_FAILED', errno: 1 });
      await disk.readInto(new Uint8Array(512), 1024);
    },
  },
  {
    name: 'as XenServer speaks',
    server: { personality: 'xenserver' },
    turns: [
      ['server', greeting(1)],
      ['client', u32(1), option(1, Buffer.from('disk'))],
      ['server', u64(BigInt(SIZE)), u16(3), Buffer.alloc(124)],
      ['client', request(1, 0, 4096, 8192)],
      ['server', simple(0, cookie(1), bytes.subarray(4096, 12288))],
      ['client', goodbye],
    ],
    async client(target) {
      await using disk = await connectNbd({ ...target, profile: 'xenserver' });
      expect([disk.size, disk.readOnly, disk.hasExtents]).toEqual([SIZE, true, false]);
      const read = new Uint8Array(8192);
      await disk.readInto(read, 4096);
      expect(Buffer.compare(read, bytes.subarray(4096, 12288))).toBe(0);
    },
  },
  {
    name: 'the list of exports',
    turns: [
      ['server', greeting(3)],
      ['client', u32(3), option(3)],
      ['server', optionReply(3, 2, text('disk')), optionReply(3, ACK)],
      ['client', option(2)],
      ['server', optionReply(2, ACK)],
    ],
    async client(target) {
      expect(await listNbdExports(target)).toEqual([{ name: 'disk', description: '' }]);
    },
  },
  {
    name: 'an export that is not there',
    turns: [
      ...opening(READ_ONLY).slice(0, 3),
      ['client', option(10, Buffer.concat([text('no'), u32(1), text('base:allocation')]))],
      ['server', optionReply(10, 4, Buffer.concat([u32(1), context])), optionReply(10, ACK)],
      ['client', option(7, Buffer.concat([text('no'), u16(1), u16(3)]))],
      ['server', refusal(7, 6, 'no such export')],
      ['client', option(2)],
      ['server', optionReply(2, ACK)],
    ],
    async client(target) {
      const refused = connectNbd({ ...target, exportName: 'no' });
      await expect(refused).rejects.toMatchObject({ code: 'NBD_EXPORT_UNKNOWN', stage: 'export' });
    },
  },
  {
    name: 'TLS that the server does not have: nothing more is said',
    turns: [
      ['server', greeting(3)],
      ['client', u32(1), option(5)],
      ['server', refusal(5, 2, 'TLS is off')],
      ['client', option(2)],
      ['server', optionReply(2, ACK)],
    ],
    async client(target) {
      const refused = connectNbd({ ...target, tls: { insecure: true } });
      await expect(refused).rejects.toMatchObject({ code: 'NBD_TLS_REFUSED', retryable: false });
    },
  },
];
