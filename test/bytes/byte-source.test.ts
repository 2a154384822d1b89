import { open, truncate } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import {
  ascii,
  assertRange,
  fileSource,
  openFileSource,
  readBytes,
  readStruct,
  struct,
  u32,
} from '../../src/bytes/index.ts';
import { patterned } from '../support/patterned.ts';
import { failingSource, InjectedFailure, SOURCE_KINDS, sourceOf, tempFile } from '../support/sources.ts';
import { tempDir } from '../support/temp-dir.ts';

const bytes = patterned(300_000);
const sameBytes = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0);
const pair = struct('pair', 8, { name: ascii(4), count: u32 });

describe.each(SOURCE_KINDS)('a source in a %s', (kind) => {
  test('has its size and gives any range whole', async () => {
    await using source = await sourceOf(kind, bytes);
    expect(source.size).toBe(300_000);
    for (const [offset, length] of [
      [0, 300_000],
      [0, 1],
      [299_999, 1],
      [1234, 70_000],
      [300_000, 0],
      [0, 0],
    ] as const) {
      sameBytes(await readBytes(source, offset, length), bytes.slice(offset, offset + length));
    }
  });

  test('fills a view, and nothing beside it', async () => {
    await using source = await sourceOf(kind, bytes);
    const target = new Uint8Array(30).fill(0xee);
    await source.readInto(target.subarray(10, 20), 500);
    expect(target.slice(10, 20)).toEqual(bytes.slice(500, 510));
    expect([...target.slice(0, 10), ...target.slice(20)].every((byte) => byte === 0xee)).toBe(true);
  });

  test('serves reads at the same time', async () => {
    await using source = await sourceOf(kind, bytes);
    const offsets = Array.from({ length: 50 }, (_, i) => (i * 7919) % 290_000);
    const pieces = await Promise.all(offsets.map((offset) => readBytes(source, offset, 1000)));
    for (const [i, offset] of offsets.entries()) sameBytes(pieces[i]!, bytes.slice(offset, offset + 1000));
  });

  test.each([
    [299_999, 2],
    [300_001, 0],
    [-1, 1],
    [0.5, 1],
    [Number.NaN, 1],
    [2 ** 53, 1],
  ])('refuses to read from %d, %i bytes', async (offset, length) => {
    await using source = await sourceOf(kind, bytes);
    await expect(source.readInto(new Uint8Array(length), offset)).rejects.toBeInstanceOf(RangeError);
  });

  test('decodes a structure, whose errors say where it starts', async () => {
    await using source = await sourceOf(kind, bytes);
    expect(await readStruct(source, 100, pair)).toEqual(pair.decode(bytes.subarray(100, 108)));
  });

  test('after an abort rejects with its reason', async () => {
    await using source = await sourceOf(kind, bytes);
    const reason = new Error('enough');
    await expect(readBytes(source, 0, 10, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test('may be closed twice, and at the same time', async () => {
    const source = await sourceOf(kind, bytes);
    await Promise.all([source.close(), source.close()]);
    await source[Symbol.asyncDispose]();
  });

  test('of no bytes', async () => {
    await using source = await sourceOf(kind, new Uint8Array(0));
    expect(source.size).toBe(0);
    expect(await readBytes(source, 0, 0)).toEqual(new Uint8Array(0));
    await expect(readBytes(source, 0, 1)).rejects.toBeInstanceOf(RangeError);
  });
});

test('a file that shrank is an error with its name, not a short read', async () => {
  const path = await tempFile(bytes);
  await using source = await openFileSource(path);
  await truncate(path, 1000);
  await expect(readBytes(source, 900, 200)).rejects.toMatchObject({
    code: 'BYTES_FILE_SHORT',
    message: `${path}: file at offset 1000: expected 300000 bytes, got its end at 1000`,
  });
  expect(await readBytes(source, 900, 100)).toEqual(bytes.slice(900, 1000));
});

test('a missing file keeps the error of the system', async () => {
  await expect(openFileSource(`${await tempDir()}/none`)).rejects.toMatchObject({ code: 'ENOENT' });
});

test('a directory or a device is refused, since its size says nothing', async () => {
  const path = await tempDir();
  await expect(openFileSource(path)).rejects.toMatchObject({
    code: 'BYTES_NOT_A_FILE',
    message: `${path}: file at offset 0: expected a regular file, got a directory`,
  });
  if (process.platform !== 'win32') {
    await expect(openFileSource('/dev/zero')).rejects.toMatchObject({ code: 'BYTES_NOT_A_FILE' });
  }
});

test('closing a file source closes the handle', async () => {
  const path = await tempFile(bytes);
  const handle = await open(path, 'r');
  const source = fileSource(handle, 100, path);
  expect(source.size).toBe(100);
  await expect(readBytes(source, 50, 51)).rejects.toBeInstanceOf(RangeError);
  await source.close();
  await expect(handle.stat()).rejects.toMatchObject({ code: 'EBADF' });
});

test('a read that fails reaches whoever asked', async () => {
  await using source = failingSource(await sourceOf('memory', bytes), 2);
  expect(await readBytes(source, 0, 10)).toEqual(bytes.slice(0, 10));
  await expect(readBytes(source, 0, 10)).rejects.toBeInstanceOf(InjectedFailure);
});

test.each([
  [10, 0, 10],
  [10, 10, 0],
  [0, 0, 0],
  [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 1, 1],
])('of %d bytes, those from %d, %d long, are a range', (size, offset, length) => {
  expect(() => assertRange('thing', size, offset, length)).not.toThrow();
});

test.each([
  [10, 0, 11],
  [10, 11, 0],
  [10, -1, 2],
  [10, 0, -1],
  [10, 0.5, 1],
  [10, 0, Number.POSITIVE_INFINITY],
  [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
])('of %d bytes, those from %d, %d long, are none', (size, offset, length) => {
  expect(() => assertRange('thing', size, offset, length)).toThrow(RangeError);
  expect(() => assertRange('thing', size, offset, length)).toThrow('thing: ');
});
