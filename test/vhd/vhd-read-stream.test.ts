import { describe, expect, test } from 'vitest';
import { isZero, memorySource } from '../../src/bytes/index.ts';
import { openVhd, readVhdStream } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { CHUNKINGS, chunksOf, chunksOfSizes, failingChunks, InjectedFailure } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';
import { bytesOf, poured } from './support/disk-bytes.ts';
import { rejection } from './support/expect-code.ts';
import { vhdFixture } from './support/fixture.ts';
import { bits, tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;
const DATA = patterned(2 * MIB);
const KIB64 = 64 * 1024;
/** One whole and one partial block of 64 KiB: small enough to go byte by byte. */
const SMALL = tinyVhd({
  size: 3 * KIB64 + 1024,
  blockSize: KIB64,
  blocks: [
    { index: 1, bitmap: new Uint8Array(16).fill(0xff), data: DATA.subarray(0, KIB64) },
    { index: 3, bitmap: new Uint8Array(16).fill(0xff), data: DATA.subarray(7, KIB64) },
  ],
});

async function consume(bytes: AsyncIterable<Uint8Array>, options = {}) {
  const stream = await readVhdStream(bytes, options);
  return poured(stream.blocks, stream.size);
}

test.each(CHUNKINGS)('gives what random access gives, from %s chunks', async (chunking) => {
  const stream = await readVhdStream(chunksOf(SMALL, chunking), { exact: true });
  await using disk = await openVhd(memorySource(SMALL));
  expect(stream).toMatchObject({ kind: 'dynamic', size: disk.size, length: SMALL.byteLength, uuid: disk.uuid });
  expect(stream.footer).toEqual(disk.footer);
  expect(stream.header).toEqual(disk.header);
  expect([...stream.blockIndexes]).toEqual([1, 3]);
  expect(Buffer.compare(await poured(stream.blocks, stream.size), await bytesOf(disk))).toBe(0);
});

test('reads what qemu-img wrote', async () => {
  const bytes = await vhdFixture('qemu-img-7.2-force-size-5mib.vhd');
  const stream = await readVhdStream(chunksOf(bytes), { exact: true });
  expect(stream.length).toBe(bytes.byteLength);
  const [block, ...more] = await toArray(stream.blocks);
  expect(more).toEqual([]);
  expect(block).toMatchObject({ offset: 4 * MIB });
  expect(block!.data.byteLength).toBe(MIB); // cut at the disk's end
  expect(block!.data.slice(-512)).toEqual(new Uint8Array(512).fill(0xd4));
});

test('a block for each run of marked sectors, none beyond the end', async () => {
  const bytes = tinyVhd({
    size: 2 * MIB + 1024,
    type: 4,
    blocks: [
      { index: 0, bitmap: bits(0, 1, 7, 4095), data: DATA },
      { index: 1, bitmap: bits(1, 2, 3), data: DATA },
    ],
  });
  const stream = await readVhdStream(chunksOf(bytes));
  const blocks = await toArray(stream.blocks);
  expect(stream.kind).toBe('differencing');
  expect(blocks.map(({ offset, data }) => [offset, data.byteLength])).toEqual([
    [0, 1024],
    [7 * 512, 512],
    [4095 * 512, 512],
    [2 * MIB + 512, 512],
  ]);
  expect(blocks[1]!.data).toEqual(DATA.slice(7 * 512, 8 * 512));
});

describe('layouts of other tools', () => {
  const gaps = { gap: 3584 };
  const block = (index: number, from: number) => ({
    index,
    bitmap: new Uint8Array(16).fill(0xff),
    data: DATA.subarray(from, from + KIB64),
    ...gaps,
  });
  const vhd = (blocks: ReturnType<typeof block>[], tailGap = 0) =>
    tinyVhd({
      size: 4 * KIB64,
      blockSize: KIB64,
      tableEntries: 4096,
      locators: [{ code: 'MacX', text: Buffer.from('file://./a') }],
      blocks,
      tailGap,
    });

  test('gaps, a longer table, locators behind it, a gap before the footer', async () => {
    const bytes = vhd([block(0, 1), block(2, 5)], 2048);
    const stream = await readVhdStream(chunksOf(bytes, 'odd'));
    expect(stream.length).toBe(bytes.byteLength - 2048);
    const expected = new Uint8Array(4 * KIB64);
    expected.set(DATA.subarray(1, 1 + KIB64));
    expected.set(DATA.subarray(5, 5 + KIB64), 2 * KIB64);
    expect(Buffer.compare(await poured(stream.blocks, stream.size), expected)).toBe(0);
    await rejection(consume(chunksOf(bytes), { exact: true }), 'STREAM_LENGTH');
  });

  test('blocks in the order in which they were written: refused, or given so', async () => {
    const bytes = vhd([block(2, 5), block(0, 1)]);
    await rejection(readVhdStream(chunksOf(bytes)), 'VHD_STREAM_ORDER');
    const stream = await readVhdStream(chunksOf(bytes), { order: 'file' });
    expect([...stream.blockIndexes]).toEqual([0, 2]);
    expect((await toArray(stream.blocks)).map(({ offset }) => offset)).toEqual([2 * KIB64, 0]);
  });

  test('a footer of 511 bytes', async () => {
    const bytes = vhd([block(0, 1)]);
    await consume(chunksOf(bytes.subarray(0, -1), 'odd'));
  });

  test('no block at all', async () => {
    expect(isZero(await consume(chunksOf(vhd([], 1024))))).toBe(true);
  });
});

describe('a stream that is not whole', () => {
  test('cut anywhere, it is refused', async () => {
    const edges = [0, 1, 511, 512, 1024, 1535, 1536, 1537, 2047, 2048, 2049, 2560];
    const blocks = [2048, 2048 + 512 + KIB64, 2048 + 2 * (512 + KIB64)];
    for (const edge of [...edges, ...blocks.flatMap((at) => [at - 1, at, at + 1, at + 511, at + 512])]) {
      if (edge >= SMALL.byteLength - 1) continue; // 511 bytes of footer are one
      const error = await consume(chunksOf(SMALL.subarray(0, edge), 'odd')).catch((reason: unknown) => reason);
      expect(error, `cut at ${edge}`).toMatchObject({ code: 'STREAM_ENDED', retryable: true });
    }
  });

  test('its own failure comes through', async () => {
    await expect(consume(failingChunks(SMALL, 5000))).rejects.toBeInstanceOf(InjectedFailure);
  });

  test('another footer, or none, at the end', async () => {
    const other = SMALL.slice();
    other.set(
      tinyVhd({ size: 3 * KIB64 + 1024, uuid: '99999999-0506-0708-090a-0b0c0d0e0f10' }).subarray(0, 512),
      SMALL.length - 512,
    );
    await rejection(consume(chunksOf(other)), 'VHD_FOOTERS_DIFFER');
    const zeros = SMALL.slice();
    zeros.fill(0, -512);
    await rejection(consume(chunksOf(zeros)), 'VHD_FOOTER_MISSING');
    const longer = new Uint8Array(SMALL.length + 512);
    longer.set(SMALL);
    await rejection(consume(chunksOf(longer)), 'VHD_FOOTER_MISSING');
  });

  const ANSWER = Buffer.from('HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\n\r\n');
  test.each([
    ['at the start', 0],
    ['for a header', 512],
    ['for the table', 1536],
    ['for a block', 2048],
    ['within a block', 2048 + 512 + 1000],
    ['for the last footer', SMALL.length - 512],
  ])('an HTTP answer %s is told as such', async (_, at) => {
    const bytes = Buffer.concat([SMALL.subarray(0, at), ANSWER]);
    const error = await rejection(consume(chunksOfSizes(bytes, [1000])), 'VHD_HTTP_ANSWER');
    expect(error.message).toContain('HTTP/1.1 500 Int');
  });
});

test('giving up closes the source: before, during and after a failed head', async () => {
  let closed = 0;
  async function* source(bytes: Uint8Array) {
    try {
      yield* chunksOf(bytes, 'odd');
    } finally {
      closed++;
    }
  }
  const unread = await readVhdStream(source(SMALL));
  await unread.close();
  expect(closed).toBe(1);
  const half = await readVhdStream(source(SMALL));
  for await (const _ of half.blocks) break;
  expect(closed).toBe(2);
  await rejection(readVhdStream(source(new Uint8Array(5000))), 'VHD_NOT_VHD');
  expect(closed).toBe(3);
});

test('a fixed VHD cannot be read as a stream', async () => {
  const reading = readVhdStream(chunksOf(await vhdFixture('qemu-img-7.2-fixed-34816.vhd')));
  expect((await rejection(reading, 'VHD_NOT_VHD')).message).toContain('fixed VHD');
});
