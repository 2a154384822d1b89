import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { checkingXva, checkXva, openXva, readXvaStream } from '../../src/xva/index.ts';
import { chunksOf, chunksOfSizes, failEachRead, failingChunks, InjectedFailure } from '../support/sources.ts';
import { contentOf, disksOf, fixture } from './support.ts';

async function readAll(bytes: AsyncIterable<Uint8Array>): Promise<unknown> {
  try {
    await using stream = await readXvaStream(bytes);
    await disksOf(stream);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Edges of the entries of a tar, the header's own middle, and the archive's end. */
function edges(length: number): number[] {
  const places = [0, 1, 100, 511];
  for (let at = 512; at < length; at += 512) places.push(at);
  return [...places, length - 1];
}

describe('an archive that is cut', () => {
  test('anywhere is refused by all readers, and no check calls it whole', async () => {
    const bytes = await fixture('plain.xva');
    for (const length of edges(bytes.byteLength)) {
      const part = bytes.subarray(0, length);
      const error = await readAll(chunksOf(part));
      expect(error, `stream of ${length}`).toMatchObject({ code: 'XVA_TRUNCATED', retryable: true });
      await expect(openXva(memorySource(part)), `file of ${length}`).rejects.toBeInstanceOf(FormatError);
      expect((await checkXva(memorySource(part))).ok).toBe(false);
    }
  });

  test.each(['gzip', 'zstd'] as const)('within its %s data is refused, too', async (compression) => {
    const pack = compression === 'gzip' ? gzipSync : zstdCompressSync;
    const bytes = pack(await fixture('plain.xva'));
    for (let length = 0; length < bytes.byteLength; length += 37) {
      const part = bytes.subarray(0, length);
      expect(await readAll(chunksOf(part)), `${length} bytes`).toBeInstanceOf(FormatError);
      expect((await checkXva(memorySource(part))).ok, `${length} bytes`).toBe(false);
    }
  });
});

test('a flipped bit of a chunk or a checksum is found, wherever it is', async () => {
  const bytes = await fixture('sha1.xva');
  const dataStart = bytes.byteLength - 512 * 50;
  for (let at = dataStart; at < bytes.byteLength - 1024; at += 397) {
    const broken = bytes.slice();
    broken[at]! ^= 0x10;
    const padding = (await checkXva(memorySource(broken))).ok;
    // Padding means nothing to anybody; all else must be seen.
    if (padding) expect(bytes[at], `byte ${at}`).toBe(0);
    else expect(await readAll(chunksOf(broken)), `byte ${at}`).toBeInstanceOf(FormatError);
  }
});

describe('hostile headers', () => {
  async function withSize(size: string): Promise<Uint8Array> {
    const bytes = (await fixture('plain.xva')).slice();
    const view = Buffer.from(bytes.buffer);
    const at = bytes.byteLength - 512 * 50;
    const header = Math.floor(at / 512) * 512;
    let start = header;
    while (view.toString('latin1', start, start + 4) !== 'Ref:') start += 512;
    view.write(size, start + 124, 'latin1');
    view.fill(' ', start + 148, start + 156);
    const sum = view.subarray(start, start + 512).reduce((total, byte) => total + byte, 0);
    view.write(`${sum.toString(8).padStart(6, '0')}\0`, start + 148, 'latin1');
    return bytes;
  }

  test.each(['77777777777\0', '00100000001\0'])('a size of %j is not believed', async (size) => {
    const bytes = await withSize(size);
    expect(await readAll(chunksOf(bytes))).toMatchObject({ code: expect.stringMatching(/^XVA_CHUNK_/) as string });
    expect((await checkXva(memorySource(bytes))).findings[0]?.code).toMatch(/^XVA_CHUNK_/);
  });

  test('a size that is no number is told', async () => {
    expect(await readAll(chunksOf(await withSize('not octal!!\0')))).toMatchObject({ code: 'XVA_TAR_SIZE' });
  });

  test('endless compressed zeros end at the first header', async () => {
    const bomb = gzipSync(new Uint8Array(256 * 1024 * 1024));
    const before = process.memoryUsage().arrayBuffers;
    expect(await readAll(chunksOfSizes(bomb, [65_536]))).toMatchObject({ code: 'XVA_UNEXPECTED_ENTRY' });
    expect((await checkXva(memorySource(bomb))).findings[0]?.code).toBe('XVA_UNEXPECTED_ENTRY');
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(128 * 1024 * 1024);
  });
});

describe('failures to read', () => {
  test('each read of a file failed in turn rejects, and is no finding', async () => {
    const bytes = await fixture('plain.xva');
    for (const work of [
      (source: Parameters<typeof openXva>[0]) => openXva(source),
      (source: Parameters<typeof checkXva>[0]) => checkXva(source),
    ]) {
      const outcomes = await failEachRead(bytes, work);
      expect(outcomes.length).toBeGreaterThan(0);
      for (const { error } of outcomes) expect(error).toBeInstanceOf(InjectedFailure);
    }
    await using image = await openXva(memorySource(bytes));
    expect((await contentOf(image.disks[0]!)).byteLength).toBe(20_480);
  });

  test('a stream that breaks off is passed on as it was', async () => {
    const bytes = await fixture('plain.xva');
    expect(await readAll(failingChunks(bytes, 20_000))).toBeInstanceOf(InjectedFailure);
    const checking = checkingXva(failingChunks(bytes, 20_000));
    const passing = (async () => {
      for await (const _ of checking.bytes);
    })();
    await expect(passing).rejects.toBeInstanceOf(InjectedFailure);
    await expect(checking.report).resolves.toMatchObject({ ok: false, firstBad: {} });
  });

  test.each(['plain.xva', 'plain.xva.zst', 'plain.xva.gz'])('%s left early tells the source', async (name) => {
    const bytes = await fixture(name);
    let closed = 0;
    async function* source() {
      try {
        yield* chunksOfSizes(bytes, [600]);
      } finally {
        closed++;
      }
    }
    const stream = await readXvaStream(source());
    await stream.close();
    expect(closed).toBe(1);
    const checking = checkingXva(source());
    for await (const _ of checking.bytes) break;
    expect(closed).toBe(2);
    expect((await checking.report).ok).toBe(false);
  });

  test('an abort ends reading and checking', async () => {
    const bytes = await fixture('plain.xva');
    const stop = new AbortController();
    const stream = await readXvaStream(chunksOfSizes(bytes, [600]), { signal: stop.signal });
    stop.abort(new Error('enough'));
    await expect(disksOf(stream)).rejects.toThrow('enough');
    await expect(checkXva(memorySource(bytes), { signal: stop.signal })).rejects.toThrow('enough');
    await expect(openXva(memorySource(bytes), { signal: stop.signal })).rejects.toThrow('enough');
  });
});

test('the checks hash what sha1sum hashes', async () => {
  // Guards the fixtures themselves: the first chunk of `sha1.xva` is 4096 times the letter a.
  const sum = createHash('sha1').update('a'.repeat(4096)).digest('hex');
  expect(Buffer.from(await fixture('sha1.xva')).includes(sum)).toBe(true);
});
