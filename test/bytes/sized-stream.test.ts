import { describe, expect, test } from 'vitest';
import { exactly } from '../../src/bytes/index.ts';
import { patterned } from '../support/patterned.ts';
import { CHUNKINGS, chunksOf, collect, failingChunks, InjectedFailure } from '../support/sources.ts';

const bytes = patterned(5000);

describe.each(CHUNKINGS)('a stream cut as %s', (chunking) => {
  test('of the promised length passes unchanged', async () => {
    expect(await collect(exactly(5000, chunksOf(bytes, chunking)))).toEqual(bytes);
    expect(await collect(exactly(0, chunksOf(new Uint8Array(0), chunking)))).toEqual(new Uint8Array(0));
  });

  test('that is shorter fails at its end', async () => {
    const passed: Uint8Array[] = [];
    const work = async () => {
      for await (const chunk of exactly(5001, chunksOf(bytes, chunking), 'the image')) passed.push(chunk);
    };
    await expect(work()).rejects.toMatchObject({
      code: 'STREAM_LENGTH',
      at: { what: 'the image', offset: 5000, expected: 5001, actual: 5000 },
    });
    expect(await collect(passed)).toEqual(bytes);
  });

  test('that is longer never sends a byte too many, and its source is closed', async () => {
    let closed = false;
    const source = async function* () {
      try {
        yield* chunksOf(bytes, chunking);
      } finally {
        closed = true;
      }
    };
    let passed = 0;
    const work = async () => {
      for await (const chunk of exactly(4999, source())) passed += chunk.byteLength;
    };
    await expect(work()).rejects.toMatchObject({ code: 'STREAM_LENGTH', at: { expected: 4999 } });
    expect(passed).toBeLessThanOrEqual(4999);
    expect(closed).toBe(true);
  });
});

test('a promise of nothing refuses the first byte', async () => {
  await expect(collect(exactly(0, chunksOf(bytes)))).rejects.toMatchObject({ code: 'STREAM_LENGTH' });
});

test("the source's failure passes unchanged", async () => {
  await expect(collect(exactly(5000, failingChunks(bytes, 4096)))).rejects.toBeInstanceOf(InjectedFailure);
});

test('leaving early closes the source', async () => {
  let closed = false;
  const source = async function* () {
    try {
      yield bytes;
    } finally {
      closed = true;
    }
  };
  for await (const _ of exactly(5000, source())) break;
  expect(closed).toBe(true);
});
