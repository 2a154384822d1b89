import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Block, memoryDisk } from '../../src/disk/index.ts';
import { checkVhd, geometryOf, MAX_VHD_SIZE, openVhd, writeVhd } from '../../src/vhd/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const CYLINDER = 16 * 255 * 512;
const LARGEST_GEOMETRY = 65535 * CYLINDER;

test.each([
  [512, 0, 4, 17],
  [8 * MIB, 240, 4, 17],
  [10 * MIB, 301, 4, 17],
  [10 * GIB, 20805, 16, 63],
  [65535 * 16 * 63 * 512 - 512, 65534, 16, 63],
  [65535 * 16 * 63 * 512, 16191, 16, 255],
  [31.5 * GIB, 16191, 16, 255],
  [40 * GIB, 20560, 16, 255],
  [126 * GIB, 64764, 16, 255],
  [LARGEST_GEOMETRY - CYLINDER, 65534, 16, 255],
  [LARGEST_GEOMETRY, 65535, 16, 255],
  [LARGEST_GEOMETRY + CYLINDER, 65535, 16, 255],
  [2040 * GIB, 65535, 16, 255],
])(
  'the geometry of %i bytes is %i/%i/%i, as vhd-util and qemu compute it',
  (size, cylinders, heads, sectorsPerTrack) => {
    expect(geometryOf(size)).toEqual({ cylinders, heads, sectorsPerTrack });
  },
);

test.each([512, 67 * 512, 68 * 512, 2 * MIB])('nothing is unusual about a disk of %i bytes', async (size) => {
  const path = join(await tempDir(), 'small.vhd');
  await writeVhd(memoryDisk(patterned(size)), path);
  expect((await checkVhd(path, { level: 'content' })).findings).toEqual([]);
});

const LARGE = [LARGEST_GEOMETRY - CYLINDER, LARGEST_GEOMETRY, LARGEST_GEOMETRY + CYLINDER, MAX_VHD_SIZE];

test.each(LARGE)('a disk of %i bytes with data at both ends', async (size) => {
  const path = join(await tempDir(), 'large.vhd');
  const first = { offset: 512, data: patterned(1024) };
  const last = { offset: size - 512, data: patterned(512, 2) };
  async function* ends(): AsyncGenerator<Block, void> {
    yield first;
    yield last;
  }
  const written = await writeVhd({ size, blocks: ends() }, path);
  expect(written.blockIndexes.length).toBe(2);
  await using disk = await openVhd(path);
  expect(disk.warnings).toEqual([]);
  expect(disk.size).toBe(size);
  for (const { offset, data } of [first, last]) {
    const read = new Uint8Array(data.byteLength);
    await disk.readInto(read, offset);
    expect(read).toEqual(data);
  }
  expect((await toArray(disk.extents())).filter(({ kind }) => kind === 'data')).toHaveLength(2);
  expect((await checkVhd(path, { level: 'content' })).summary).toMatchObject({ allocatedBlockCount: 2, size });
  if (!hasTool('qemu-img')) return;
  const info = JSON.parse(execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' }));
  expect(info['virtual-size']).toBe(size);
  const map = execFileSync('qemu-img', ['map', '--output=json', path], { encoding: 'utf8' });
  const data = (JSON.parse(map) as { start: number; length: number; data: boolean }[]).filter((run) => run.data);
  expect(data.at(-1)!.start + data.at(-1)!.length).toBe(size);
});
