import { describe, expect, test } from 'vitest';
import { isZero, memorySource, readBytes } from '../../src/bytes/index.ts';
import { type Disk, memoryDisk, openRawDisk, rawDisk } from '../../src/disk/index.ts';
import { patterned } from '../support/patterned.ts';
import { failingSource, tempFile } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';

const KIB = 1024;
const bytes = patterned(300 * KIB).fill(0, 70 * KIB, 200 * KIB);

const open: Record<string, () => Promise<Disk>> = {
  memoryDisk: async () => memoryDisk(bytes.slice()),
  rawDisk: async () => rawDisk(memorySource(bytes)),
  openRawDisk: async () => openRawDisk(await tempFile(bytes)),
};

describe.each(Object.keys(open))('%s', (name) => {
  test('has its size and gives any range', async () => {
    await using disk = await open[name]!();
    expect(disk.size).toBe(300 * KIB);
    expect(Buffer.compare(await readBytes(disk, 0, disk.size), bytes)).toBe(0);
    expect(await readBytes(disk, 69 * KIB, 5000)).toEqual(bytes.slice(69 * KIB, 69 * KIB + 5000));
    await expect(readBytes(disk, disk.size - 1, 2)).rejects.toBeInstanceOf(RangeError);
  });

  test.each([{}, { offset: 65 * KIB, length: 100 * KIB }, { offset: 300 * KIB }, { offset: 10, length: 0 }])(
    'its extents cover %o exactly and call zero only what is zero',
    async (range) => {
      await using disk = await open[name]!();
      const offset = range.offset ?? 0;
      let at = offset;
      for await (const extent of disk.extents(range)) {
        expect(extent.offset).toBe(at);
        expect(extent.length).toBeGreaterThan(0);
        at += extent.length;
        if (extent.kind === 'zero') expect(isZero(bytes.subarray(extent.offset, at))).toBe(true);
        else expect(extent.kind).toBe('data');
      }
      expect(at).toBe(offset + (range.length ?? 300 * KIB - offset));
    },
  );

  test('refuses extents past its end', async () => {
    await using disk = await open[name]!();
    await expect(toArray(disk.extents({ offset: 1, length: 300 * KIB }))).rejects.toBeInstanceOf(RangeError);
  });
});

describe('memoryDisk', () => {
  test('tells runs of 64 KiB of zeros', async () => {
    expect(await toArray(memoryDisk(bytes).extents())).toEqual([
      { offset: 0, length: 128 * KIB, kind: 'data' },
      { offset: 128 * KIB, length: 64 * KIB, kind: 'zero' },
      { offset: 192 * KIB, length: 108 * KIB, kind: 'data' },
    ]);
  });

  test('counts the runs from the start of the disk, wherever the range starts', async () => {
    expect(await toArray(memoryDisk(bytes).extents({ offset: 100 * KIB, length: 120 * KIB }))).toEqual([
      { offset: 100 * KIB, length: 92 * KIB, kind: 'zero' },
      { offset: 192 * KIB, length: 28 * KIB, kind: 'data' },
    ]);
  });

  test('writes into the bytes it was given', async () => {
    const own = new Uint8Array(100);
    const disk = memoryDisk(own);
    await disk.write(Uint8Array.of(1, 2, 3), 97);
    await disk.write(Uint8Array.of(9, 9), 0);
    await disk.writeZeroes(98, 1);
    await disk.flush();
    expect([...own.subarray(95)]).toEqual([0, 0, 1, 0, 3]);
    expect([...(await readBytes(disk, 0, 3))]).toEqual([9, 9, 0]);
    await expect(disk.write(Uint8Array.of(1, 2), 99)).rejects.toBeInstanceOf(RangeError);
    await expect(disk.writeZeroes(99, 2)).rejects.toBeInstanceOf(RangeError);
    await expect(disk.writeZeroes(-1, 2)).rejects.toBeInstanceOf(RangeError);
  });

  test('after an abort does nothing', async () => {
    const own = new Uint8Array(10);
    const disk = memoryDisk(own);
    const reason = new Error('enough');
    const options = { signal: AbortSignal.abort(reason) };
    await expect(disk.write(Uint8Array.of(1), 0, options)).rejects.toBe(reason);
    await expect(disk.writeZeroes(0, 1, options)).rejects.toBe(reason);
    await expect(readBytes(disk, 0, 1, options)).rejects.toBe(reason);
    await expect(toArray(disk.extents(options))).rejects.toBe(reason);
    expect(own[0]).toBe(0);
  });
});

test('closing a raw disk closes its source', async () => {
  const source = failingSource(memorySource(bytes), Infinity);
  await rawDisk(source).close();
  expect(source.closed).toBe(true);
});
