import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { type Block, type Disk, memoryDisk } from '../../src/disk/index.ts';
import { openVhd, readVhdStream, vhdStream, vhdStreamFromBlocks, writeVhd } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf } from '../support/sources.ts';
import { tempDir } from '../support/temp-dir.ts';
import { tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;
const REASON = new Error('enough');

/** A disk of data that counts the reads begun and calls back before each. */
function watched(onRead: (begun: number) => void): { disk: Disk; begun: () => number; running: () => number } {
  const disk = memoryDisk(patterned(40 * MIB));
  let begun = 0;
  let running = 0;
  return {
    begun: () => begun,
    running: () => running,
    disk: {
      ...disk,
      async readInto(target, offset, options) {
        onRead(++begun);
        running++;
        await disk.readInto(target, offset, options).finally(() => running--);
      },
    },
  };
}

test('an abort ends a stream with its reason, and reads stop', async () => {
  const stop = new AbortController();
  const { disk, begun, running } = watched((count) => count === 5 && stop.abort(REASON));
  const stream = await vhdStream(disk, { signal: stop.signal, readAhead: 2 });
  const drain = async () => {
    for await (const chunk of stream.chunks) expect(chunk.byteLength).toBeGreaterThan(0);
  };
  await expect(drain()).rejects.toBe(REASON);
  expect(begun()).toBe(5);
  expect(running()).toBe(0);
});

test('between two chunks only the read-ahead runs, and leaving early ends it', async () => {
  const { disk, begun, running } = watched(() => {});
  const stream = await vhdStream(disk, { readAhead: 2 });
  let chunks = 0;
  for await (const _ of stream.chunks) {
    expect(begun()).toBeLessThanOrEqual(chunks + 2); // the first chunk is the head
    if (++chunks === 4) break;
  }
  expect(running()).toBe(0);
});

test('an abort while a file is written removes it', async () => {
  const dir = await tempDir();
  const stop = new AbortController();
  const { disk } = watched((count) => count === 3 && stop.abort(REASON));
  await expect(writeVhd(disk, join(dir, 'a.vhd'), { signal: stop.signal })).rejects.toBe(REASON);
  expect(await readdir(dir)).toEqual([]);
});

test('an abort reaches the source of blocks and the source of bytes', async () => {
  for (const where of ['blocks', 'bytes'] as const) {
    const stop = new AbortController();
    let closed = false;
    async function* watch<T>(items: AsyncIterable<T>) {
      try {
        let count = 0;
        for await (const item of items) {
          yield item;
          if (++count === 2) stop.abort(REASON);
        }
      } finally {
        closed = true;
      }
    }
    async function* blocks(): AsyncGenerator<Block, void> {
      for (let at = 0; at < 8 * MIB; at += MIB) yield { offset: at, data: patterned(MIB) };
    }
    const drain = async (items: AsyncIterable<unknown>) => {
      for await (const item of items) expect(item).toBeDefined();
    };
    if (where === 'blocks') {
      const options = { size: 8 * MIB, blockIndexes: [0, 1, 2, 3], signal: stop.signal };
      await expect(drain(vhdStreamFromBlocks(options, watch(blocks())).chunks)).rejects.toBe(REASON);
    } else {
      const source = vhdStreamFromBlocks({ size: 8 * MIB, blockIndexes: [0, 1, 2, 3] }, blocks()).chunks;
      const reading = readVhdStream(watch(source), { signal: stop.signal });
      await expect(reading.then(({ blocks: read }) => drain(read))).rejects.toBe(REASON);
    }
    expect(closed).toBe(true);
  }
});

test('an aborted signal is seen before the first byte', async () => {
  const signal = AbortSignal.abort(REASON);
  const bytes = tinyVhd({ size: MIB });
  await expect(openVhd(memorySource(bytes), { signal })).rejects.toBe(REASON);
  await expect(readVhdStream(chunksOf(bytes), { signal })).rejects.toBe(REASON);
  await expect(vhdStream(memoryDisk(patterned(MIB)), { signal })).rejects.toBe(REASON);
});
