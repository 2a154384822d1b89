import { describe, expect, test } from 'vitest';
import { ascii, byteReader, struct, u32 } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { patterned } from '../support/patterned.ts';
import { CHUNKINGS, chunksOf, collect, failingChunks, InjectedFailure } from '../support/sources.ts';

const bytes = patterned(6000);
const pair = struct('pair', 8, { name: ascii(4), count: u32 });

describe.each(CHUNKINGS)('a stream cut as %s', (chunking) => {
  test('is read exactly, by every method in turn', async () => {
    await using reader = byteReader(chunksOf(bytes, chunking));
    const target = new Uint8Array(10);
    await reader.readInto(target);
    expect(target).toEqual(bytes.slice(0, 10));
    expect(reader.offset).toBe(10);
    expect(await reader.readStruct(pair)).toEqual(pair.decode(bytes.subarray(10, 18)));
    await reader.skip(1000);
    expect(reader.offset).toBe(1018);
    expect(await reader.read(0)).toEqual(new Uint8Array(0));
    expect(await reader.read(2000)).toEqual(bytes.slice(1018, 3018));
    expect(await reader.ended()).toBe(false);
    expect(await collect(reader.rest())).toEqual(bytes.slice(3018));
    expect(reader.offset).toBe(6000);
    expect(await reader.ended()).toBe(true);
    await reader.skip(0);
    expect(await reader.read(0)).toEqual(new Uint8Array(0));
  });

  test('that ends early is never a short read', async () => {
    const ended = (what: string, offset: number, wanted: number, got: number) => ({
      code: 'STREAM_ENDED',
      retryable: true,
      at: { what, offset, expected: `${wanted} bytes`, actual: `the end after ${got}` },
    });
    const open = async () => {
      const reader = byteReader(chunksOf(bytes, chunking), 'the export');
      await reader.skip(5990);
      return reader;
    };
    await expect((await open()).readInto(new Uint8Array(11))).rejects.toMatchObject(ended('the export', 5990, 11, 10));
    await expect((await open()).read(5000)).rejects.toMatchObject(ended('the export', 5990, 5000, 10));
    await expect((await open()).read(11, 'block 7')).rejects.toMatchObject(ended('block 7', 5990, 11, 10));
    await expect((await open()).skip(11)).rejects.toMatchObject(ended('the export', 5990, 11, 10));
    const reader = await open();
    await reader.skip(4);
    await expect(reader.readStruct(pair)).rejects.toMatchObject(ended('pair', 5994, 8, 6));
  });

  test('an empty stream has ended from the start', async () => {
    await using reader = byteReader(chunksOf(new Uint8Array(0), chunking));
    expect(await reader.ended()).toBe(true);
    await expect(reader.read(1)).rejects.toBeInstanceOf(FormatError);
    expect(await collect(reader.rest())).toEqual(new Uint8Array(0));
  });
});

test('what was read is memory of its own', async () => {
  const chunk = bytes.slice();
  await using own = byteReader(
    (async function* () {
      yield chunk;
    })(),
  );
  const read = await own.read(100);
  chunk.fill(0);
  expect(read).toEqual(bytes.slice(0, 100));
});

test("a stream's own failure passes unchanged", async () => {
  await using reader = byteReader(failingChunks(bytes, 5000));
  expect(await reader.read(5000)).toEqual(bytes.slice(0, 5000));
  await expect(reader.read(1)).rejects.toBeInstanceOf(InjectedFailure);
});

test('an error in a structure says where in the stream it starts', async () => {
  const strict = struct('strict', 8, {
    size: { size: 8, read: (_view, at, base) => expect.fail(`at ${base + at}`), write: () => {} },
  });
  await using reader = byteReader(chunksOf(bytes, 'odd'));
  await reader.skip(512);
  await expect(reader.readStruct(strict)).rejects.toThrow('at 512');
});

test('an abort ends it between two chunks, with its reason', async () => {
  const stop = new AbortController();
  const reason = new Error('enough');
  let given = 0;
  const endless = async function* () {
    for (;;) {
      given++;
      yield new Uint8Array(10);
    }
  };
  await using reader = byteReader(endless(), 'stream', { signal: stop.signal });
  await reader.read(15);
  stop.abort(reason);
  await expect(reader.read(100)).rejects.toBe(reason);
  await expect(collect(reader.rest())).rejects.toBe(reason);
  expect(given).toBe(2);
});

test('closing tells the stream, drops what was held, and may be done twice', async () => {
  let returned = 0;
  const stream = async function* () {
    try {
      yield bytes;
      yield bytes;
    } finally {
      returned++;
    }
  };
  const reader = byteReader(stream());
  await reader.read(10);
  await reader.close();
  await reader[Symbol.asyncDispose]();
  expect(returned).toBe(1);
  await expect(reader.read(1)).rejects.toMatchObject({ code: 'STREAM_ENDED' });
});

test('no more chunks are asked for than are needed', async () => {
  let given = 0;
  const stream = async function* () {
    for (;;) {
      given++;
      yield new Uint8Array(10);
    }
  };
  await using reader = byteReader(stream());
  await reader.read(10);
  expect(given).toBe(1);
  await reader.skip(20);
  expect(given).toBe(3);
});
