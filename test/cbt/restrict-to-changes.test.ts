import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { CBT_BLOCK_SIZE, ChangedBlocks, restrictToChanges } from '../../src/cbt/index.ts';
import { type Disk, type Extent, memoryDisk, overlay, readBlocks } from '../../src/disk/index.ts';
import { patterned } from '../support/patterned.ts';
import { toArray } from '../support/to-array.ts';

function changed(bytes: readonly number[], diskSize: number): ChangedBlocks {
  return ChangedBlocks.fromBase64(Buffer.from(bytes).toString('base64'), { diskSize });
}

async function extentsOf(disk: Disk, range: { offset?: number; length?: number } = {}): Promise<Extent[]> {
  return toArray(disk.extents(range));
}

const SIZE = 5 * CBT_BLOCK_SIZE + 100;

test('changed runs are data, zeros or not, and the rest is absent', async () => {
  const disk = restrictToChanges(memoryDisk(new Uint8Array(SIZE)), changed([0b0100_0100], SIZE));
  expect(await extentsOf(disk)).toEqual([
    { offset: 0, length: 65536, kind: 'absent' },
    { offset: 65536, length: 65536, kind: 'data' },
    { offset: 2 * 65536, length: 3 * 65536, kind: 'absent' },
    { offset: 5 * 65536, length: 100, kind: 'data' },
  ]);
});

test('extents of a range are cut to it', async () => {
  const disk = restrictToChanges(memoryDisk(patterned(SIZE)), changed([0b0100_0000], SIZE));
  expect(await extentsOf(disk, { offset: 65530, length: 10 })).toEqual([
    { offset: 65530, length: 6, kind: 'absent' },
    { offset: 65536, length: 4, kind: 'data' },
  ]);
  expect(await extentsOf(disk, { offset: SIZE, length: 0 })).toEqual([]);
});

test('joined gaps are data and can be read', async () => {
  const bytes = patterned(SIZE);
  const disk = restrictToChanges(memoryDisk(bytes), changed([0b1010_0000], SIZE), { mergeGap: CBT_BLOCK_SIZE });
  expect(await extentsOf(disk)).toEqual([
    { offset: 0, length: 3 * 65536, kind: 'data' },
    { offset: 3 * 65536, length: SIZE - 3 * 65536, kind: 'absent' },
  ]);
  expect(await readBytes(disk, 65536 + 5, 10)).toEqual(bytes.slice(65536 + 5, 65536 + 15));
});

test.each([
  [0, 1],
  [65535, 2],
  [65536, 65537],
  [0, SIZE],
])('%i: a read of %i bytes that touches what is absent is refused', async (offset, length) => {
  const disk = restrictToChanges(memoryDisk(patterned(SIZE)), changed([0b0100_0000], SIZE));
  await expect(readBytes(disk, offset, length)).rejects.toMatchObject({
    code: 'CBT_NOT_CHANGED',
    retryable: false,
    facts: { offset, length },
  });
});

test('reads inside are the disk, an empty read is empty, one past the end is refused', async () => {
  const bytes = patterned(SIZE);
  const disk = restrictToChanges(memoryDisk(bytes), changed([0b0100_0100], SIZE));
  expect(await readBytes(disk, 65536, 65536)).toEqual(bytes.slice(65536, 2 * 65536));
  expect(await readBytes(disk, SIZE - 100, 100)).toEqual(bytes.slice(SIZE - 100));
  expect(await readBytes(disk, 0, 0)).toEqual(new Uint8Array(0));
  await expect(readBytes(disk, SIZE, 1)).rejects.toBeInstanceOf(RangeError);
});

test('a bitmap of another size is refused', () => {
  expect(() => restrictToChanges(memoryDisk(new Uint8Array(SIZE)), changed([0], SIZE - 1))).toThrow(RangeError);
});

test('closing it closes the disk, and an abort reaches it', async () => {
  let closed = 0;
  let signalSeen: AbortSignal | undefined;
  const inner: Disk = {
    ...memoryDisk(new Uint8Array(SIZE)),
    async readInto(_target, _offset, options) {
      signalSeen = options?.signal;
    },
    async close() {
      closed++;
    },
  };
  const disk = restrictToChanges(inner, changed([0b1000_0000], SIZE));
  const stop = new AbortController();
  await disk.readInto(new Uint8Array(1), 0, { signal: stop.signal });
  expect(signalSeen).toBe(stop.signal);
  const reason = new Error('enough');
  stop.abort(reason);
  await expect(toArray(disk.extents({ signal: stop.signal }))).rejects.toBe(reason);
  await disk.close();
  await disk[Symbol.asyncDispose]();
  expect(closed).toBe(2);
});

test('laid over the old disk, the changed part gives the new disk', async () => {
  const blocks = fc.array(fc.constantFrom('same', 'zeroed', 'rewritten', 'touched'), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(blocks, fc.integer({ min: 1, max: CBT_BLOCK_SIZE }), fc.nat(3), async (fates, tail, gapBlocks) => {
      const size = (fates.length - 1) * CBT_BLOCK_SIZE + tail;
      const before = patterned(size);
      const after = before.slice();
      const bits = new Uint8Array(Math.ceil(fates.length / 8));
      for (const [i, fate] of fates.entries()) {
        const block = after.subarray(i * CBT_BLOCK_SIZE, (i + 1) * CBT_BLOCK_SIZE);
        if (fate === 'zeroed') block.fill(0);
        if (fate === 'rewritten') block.set(patterned(block.byteLength, 99));
        if (fate !== 'same') bits[i >> 3]! |= 0x80 >> (i & 7);
      }
      const delta = restrictToChanges(memoryDisk(after), changed([...bits], size), {
        mergeGap: gapBlocks * CBT_BLOCK_SIZE,
      });
      const merged = overlay([memoryDisk(before), delta]);
      expect(Buffer.compare(await readBytes(merged, 0, size), after)).toBe(0);
      for await (const { offset, data } of readBlocks(delta, { blockSize: 128 * 1024, absent: 'skip' })) {
        expect(Buffer.compare(data, after.subarray(offset, offset + data.byteLength))).toBe(0);
      }
    }),
    { numRuns: 40 },
  );
});
