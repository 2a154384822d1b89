import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { overlay } from '../../src/disk/index.ts';
import { openVhd, readVhdStream } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf, failEachRead, SOURCE_KINDS, sourceOf, tempFile } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';
import { bytesOf, poured } from './support/disk-bytes.ts';
import { rejection } from './support/expect-code.ts';
import { vhdFixture } from './support/fixture.ts';
import { ALL, bits, tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;

const GOLDEN = [
  {
    name: 'qemu-img-7.2-fixed-34816.vhd',
    kind: 'fixed',
    size: 34816,
    sha256: '6c812fffd0abfb388168ffb099bf2b17576b465c9d9027d615b0bcbb4957f104',
    blocks: undefined,
  },
  {
    name: 'qemu-img-7.2-dynamic-4mib.vhd',
    kind: 'dynamic',
    size: 4212736,
    sha256: '66dea1f05f35fa0b081327197b734a5b978bd3df70e9b57138502d26e0464293',
    blocks: [0, 1, 2],
  },
  {
    name: 'qemu-img-7.2-force-size-5mib.vhd',
    kind: 'dynamic',
    size: 5242880,
    sha256: 'd3068733bdf61d40952c965aca1422fc4d0a4b78737e9546d69379c6f41aa19d',
    blocks: [2],
  },
  {
    name: 'vhd-util-base-8mib.vhd',
    kind: 'dynamic',
    size: 8388608,
    sha256: '4aec90fd7dc1ec1806ad7f04c6932e523fa35651a5581793b6b2866114112f28',
    blocks: [0, 1, 2, 3],
  },
] as const;

describe.each(SOURCE_KINDS)('from a %s source', (source) => {
  test.each(GOLDEN)('reads $name as its own tool does', async ({ name, kind, size, sha256, blocks }) => {
    await using disk = await openVhd(await sourceOf(source, await vhdFixture(name)));
    expect(disk).toMatchObject({ kind, size });
    expect(disk.blockIndexes && [...disk.blockIndexes]).toEqual(blocks);
    expect(
      createHash('sha256')
        .update(await bytesOf(disk))
        .digest('hex'),
    ).toBe(sha256);
  });
});

test('each failing read of a source rejects, and nothing else', async () => {
  const bytes = await vhdFixture('qemu-img-7.2-dynamic-4mib.vhd');
  const outcomes = await failEachRead(bytes, async (source) => bytesOf(await openVhd(source)));
  expect(outcomes.length).toBeGreaterThan(6);
  for (const { error } of outcomes) expect(error).toMatchObject({ name: 'InjectedFailure' });
});

test.each(GOLDEN)('$name cut at an edge is refused, or known to lack its last footer', async ({ name, kind }) => {
  const bytes = await vhdFixture(name);
  const whole = await openVhd(memorySource(bytes));
  const table = whole.header?.tableOffset ?? 0;
  const block = 2 * MIB + 512;
  const edges = [0, 512, 1536, table, table + 512, bytes.length - 512 - block, bytes.length - 512];
  for (const edge of edges.flatMap((at) => [at - 1, at, at + 1]).filter((at) => at >= 0)) {
    const opening = openVhd(memorySource(bytes.subarray(0, edge)));
    const lacksOnlyFooter = kind !== 'fixed' && edge >= bytes.length - 512;
    if (lacksOnlyFooter) expect((await opening).warnings.map(({ code }) => code)).toContain('VHD_FOOTER_MISSING');
    else await expect(opening, `cut at ${edge}`).rejects.toBeInstanceOf(FormatError);
  }
});

const DATA = patterned(2 * MIB);

test('a clear bit is zero in a dynamic disk, whatever is stored there', async () => {
  const size = 4 * MIB;
  await using disk = await openVhd(
    memorySource(tinyVhd({ size, blocks: [{ index: 1, bitmap: bits(1, 2, 9, 4095), data: DATA }] })),
  );
  const expected = new Uint8Array(size);
  for (const sector of [1, 2, 9, 4095]) {
    expected.set(DATA.subarray(sector * 512, (sector + 1) * 512), 2 * MIB + sector * 512);
  }
  expect(Buffer.compare(await bytesOf(disk), expected)).toBe(0);
  expect(await toArray(disk.extents())).toEqual([
    { offset: 0, length: 2 * MIB + 512, kind: 'zero' },
    { offset: 2 * MIB + 512, length: 1024, kind: 'data' },
    { offset: 2 * MIB + 3 * 512, length: 6 * 512, kind: 'zero' },
    { offset: 2 * MIB + 9 * 512, length: 512, kind: 'data' },
    { offset: 2 * MIB + 10 * 512, length: 4085 * 512, kind: 'zero' },
    { offset: 2 * MIB + 4095 * 512, length: 512, kind: 'data' },
  ]);
});

describe('a differencing disk', () => {
  const child = (size = 4 * MIB) =>
    tinyVhd({
      size,
      type: 4,
      parentUuid: '11111111-2222-3333-4444-555555555555',
      parentName: 'base.vhd',
      locators: [
        { code: 'W2ru', text: Buffer.from('.\\base.vhd', 'utf16le') },
        { code: 'MacX', text: Buffer.from('file://./base.vhd') },
      ],
      blocks: [{ index: 0, bitmap: bits(4, 5), data: DATA }],
    });

  test('calls absent what only its parent holds, and names the parent', async () => {
    await using disk = await openVhd(memorySource(child()));
    expect(await toArray(disk.extents())).toEqual([
      { offset: 0, length: 2048, kind: 'absent' },
      { offset: 2048, length: 1024, kind: 'data' },
      { offset: 3072, length: 4 * MIB - 3072, kind: 'absent' },
    ]);
    expect(disk.parent).toEqual({
      uuid: '11111111-2222-3333-4444-555555555555',
      name: 'base.vhd',
      timestamp: 0,
      paths: ['base.vhd', '.\\base.vhd', 'file://./base.vhd'],
    });
  });

  test('refuses to invent what it does not hold, also at the bottom of an overlay', async () => {
    const disk = await openVhd(memorySource(child()));
    const target = new Uint8Array(512);
    await disk.readInto(target, 2048);
    expect(target).toEqual(DATA.slice(2048, 2560));
    await rejection(disk.readInto(target, 1536 + 1), 'VHD_PARENT_NEEDED');
    await rejection(disk.readInto(target, 2560 + 1), 'VHD_PARENT_NEEDED');
    await rejection(disk.readInto(target, 3 * MIB), 'VHD_PARENT_NEEDED');
    await rejection(overlay([disk]).readInto(target, 3 * MIB), 'VHD_PARENT_NEEDED');
  });
});

test('blocks in any order with gaps, a block of 512 KiB, and bits beyond the end', async () => {
  const size = MIB + 1024;
  const part = DATA.subarray(0, MIB / 2);
  const bytes = tinyVhd({
    size,
    blockSize: MIB / 2,
    blocks: [
      { index: 2, bitmap: ALL.subarray(0, 128), data: part, gap: 512 },
      { index: 0, bitmap: ALL.subarray(0, 128), data: part, gap: 3584 },
    ],
    tailGap: 1024,
  });
  await using disk = await openVhd(memorySource(bytes));
  expect(await toArray(disk.extents())).toEqual([
    { offset: 0, length: MIB / 2, kind: 'data' },
    { offset: MIB / 2, length: MIB / 2, kind: 'zero' },
    { offset: MIB, length: 1024, kind: 'data' },
  ]);
  const read = await bytesOf(disk);
  expect(Buffer.compare(read.subarray(0, MIB / 2), part)).toBe(0);
  expect(read.slice(MIB)).toEqual(part.slice(0, 1024));
});

test('reads any range, to the byte', async () => {
  const bytes = tinyVhd({ size: 4 * MIB, blocks: [{ index: 0, bitmap: bits(0, 2, 4095), data: DATA }] });
  await using disk = await openVhd(memorySource(bytes));
  const whole = await bytesOf(disk);
  for (const [offset, length] of [
    [0, 0],
    [1, 1],
    [511, 2],
    [513, 1700],
    [2 * MIB - 1, 3],
    [2 * MIB - 513, 1200],
  ] as const) {
    const target = new Uint8Array(length).fill(0xee);
    await disk.readInto(target, offset);
    expect(target).toEqual(whole.slice(offset, offset + length));
  }
  await expect(disk.readInto(new Uint8Array(2), 4 * MIB - 1)).rejects.toThrow(RangeError);
});

test('a file is named in errors, and a given signal ends reads with its reason', async () => {
  const path = await tempFile(new Uint8Array(4096), 'nothing.vhd');
  expect((await rejection(openVhd(path), 'VHD_NOT_VHD')).message).toContain(path);
  await using disk = await openVhd(memorySource(tinyVhd({ size: MIB })));
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(toArray(disk.extents({ signal }))).rejects.toThrow('enough');
  await expect(openVhd(memorySource(tinyVhd({ size: MIB })), { signal })).rejects.toThrow('enough');
});

test('a table for 2 TiB in the file of a small disk, as hosts make it on LVM', async () => {
  const bytes = tinyVhd({
    size: 4 * MIB,
    tableEntries: 1_048_576,
    table: (view) => view.setUint32(5 * 4, 7), // behind what the disk needs: not to be looked at
    blocks: [{ index: 1, bitmap: bits(3), data: DATA }],
  });
  const expected = new Uint8Array(4 * MIB);
  expected.set(DATA.subarray(3 * 512, 4 * 512), 2 * MIB + 3 * 512);
  await using disk = await openVhd(memorySource(bytes));
  expect(disk.warnings).toEqual([]);
  expect(Buffer.compare(await bytesOf(disk), expected)).toBe(0);
  const stream = await readVhdStream(chunksOf(bytes), { exact: true });
  expect(stream.length).toBe(bytes.byteLength);
  expect(Buffer.compare(await poured(stream.blocks, stream.size), expected)).toBe(0);
});
