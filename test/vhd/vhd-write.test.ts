import { execFileSync } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { type Block, compareDisks, memoryDisk, readBlocks } from '../../src/disk/index.ts';
import { MAX_VHD_SIZE, openVhd, openVhdChain, vhdStream, vhdStreamFromBlocks, writeVhd } from '../../src/vhd/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { collect } from '../support/sources.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { bytesOf } from './support/disk-bytes.ts';
import { rejection } from './support/expect-code.ts';
import { modelDisk } from './support/model-disk.ts';

const MIB = 1024 * 1024;
const UUID = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const PARENT = { uuid: '11111111-2222-3333-4444-555555555555', name: 'base.vhd', timestamp: new Date('2001-01-01') };
const WHEN = new Date('2000-01-01T00:01:00Z');

/** Bytes here and there on a disk of zeros. */
function sparse(size: number, ...offsets: number[]): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const offset of offsets) bytes.set(patterned(512, offset + 1), offset);
  return bytes;
}

async function* given(...blocks: Block[]) {
  yield* blocks;
}

describe('the bytes of a dynamic VHD', () => {
  test('are these', async () => {
    const size = 5 * MIB;
    const disk = memoryDisk(sparse(size, 4 * MIB + 512));
    const stream = await vhdStream(disk, { uuid: UUID, timestamp: WHEN });
    const bytes = Buffer.from(await collect(stream.chunks));
    expect(stream.length).toBe(2048 + 512 + 2097664 + 512);
    expect(bytes.byteLength).toBe(stream.length);
    expect([...stream.blockIndexes]).toEqual([2]);

    const footer = bytes.subarray(0, 512);
    expect(bytes.subarray(-512)).toEqual(footer);
    expect(footer.toString('latin1', 0, 8)).toBe('conectix');
    expect(footer.toString('hex', 8, 28)).toBe('00000002' + '00010000' + '0000000000000200' + '0000003c');
    expect(footer.toString('latin1', 28, 32)).toBe('win ');
    expect(footer.toString('hex', 32, 36)).toBe('00060001');
    expect(footer.toString('latin1', 36, 40)).toBe('Wi2k');
    expect(footer.toString('hex', 40, 56)).toBe('0000000000500000'.repeat(2));
    expect([footer.readUInt16BE(56), footer[58], footer[59]]).toEqual([150, 4, 17]); // 10240 / 17 / 4, rounded down
    expect(footer.readUInt32BE(60)).toBe(3);
    expect(footer.toString('hex', 68, 84)).toBe(UUID.replaceAll('-', ''));
    expect(footer.subarray(84).every((byte) => byte === 0)).toBe(true);

    const header = bytes.subarray(512, 1536);
    expect(header.toString('latin1', 0, 8)).toBe('cxsparse');
    expect(header.toString('hex', 8, 36)).toBe(
      'ffffffffffffffff' + '0000000000000800' + '00010000' + '00000003' + '00200000',
    );
    expect(header.subarray(40).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(1536, 2048).every((byte) => byte === 0)).toBe(true);
    expect(bytes.toString('hex', 2048, 2060)).toBe('ffffffff' + 'ffffffff' + '00000005');
    expect(bytes.subarray(2060, 2560).every((byte) => byte === 0xff)).toBe(true);
    // half of the last block lies beyond the end: its bits are clear
    expect(bytes.subarray(2560, 2560 + 256).every((byte) => byte === 0xff)).toBe(true);
    expect(bytes.subarray(2816, 3072).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(3072 + 512, 3072 + 1024)).toEqual(Buffer.from(patterned(512, 4 * MIB + 513)));
  });

  test('carry checksums that add up', async () => {
    const { chunks } = await vhdStream(memoryDisk(new Uint8Array(512)), { uuid: UUID, timestamp: WHEN });
    const bytes = Buffer.from(await collect(chunks));
    const sum = (part: Buffer, at: number) =>
      ~part.reduce((total, byte, i) => total + (i >= at && i < at + 4 ? 0 : byte), 0) >>> 0;
    expect(bytes.readUInt32BE(64)).toBe(sum(bytes.subarray(0, 512), 64));
    expect(bytes.readUInt32BE(512 + 36)).toBe(sum(bytes.subarray(512, 1536), 36));
  });
});

describe('the bytes of a differencing VHD', () => {
  const size = 6 * MIB;
  const bytes = sparse(size, 1024, 4 * MIB);
  const disk = modelDisk(bytes, [
    { offset: 1024, length: 512, kind: 'data' },
    { offset: 2048, length: 1536, kind: 'zero' },
    { offset: 2 * MIB + 4096, length: 512, kind: 'zero' },
    { offset: 4 * MIB + 10, length: 100, kind: 'data' },
  ]);

  test('name the parent in each way, and mark exactly what is known', async () => {
    const readable = { ...disk, readInto: memoryDisk(bytes).readInto }; // widening reads around a part of a sector
    const stream = await vhdStream(readable, { uuid: UUID, parent: PARENT, timestamp: WHEN });
    const file = Buffer.from(await collect(stream.chunks));
    expect(file.byteLength).toBe(stream.length);
    expect([...stream.blockIndexes]).toEqual([0, 1, 2]);
    expect(file.readUInt32BE(60)).toBe(4);
    const header = file.subarray(512, 1536);
    expect(header.toString('hex', 40, 56)).toBe(PARENT.uuid.replaceAll('-', ''));
    expect(header.readUInt32BE(56)).toBe(366 * 86400); // 2000 was a leap year
    expect(Buffer.from(header.subarray(64, 82)).swap16().toString('utf16le')).toBe('base.vhd\0');
    const locators = [0, 1, 2, 3].map((i) => header.subarray(576 + i * 24, 600 + i * 24));
    const text = (i: number, encoding: BufferEncoding) => {
      const at = Number(locators[i]!.readBigUInt64BE(16));
      return file.toString(encoding, at, at + locators[i]!.readUInt32BE(8));
    };
    expect(locators.map((locator) => locator.toString('latin1', 0, 4))).toEqual(['W2ru', 'W2ku', 'MacX', '\0\0\0\0']);
    expect(locators.map((locator) => locator.readUInt32BE(4))).toEqual([512, 512, 512, 0]);
    expect([text(0, 'utf16le'), text(1, 'utf16le'), text(2, 'utf8')]).toEqual([
      '.\\base.vhd',
      '.\\base.vhd',
      'file://./base.vhd',
    ]);

    const block = (i: number) => file.readUInt32BE(2048 + i * 4) * 512;
    const bitmap = (i: number) => file.subarray(block(i), block(i) + 512);
    expect(block(0)).toBe(2048 + 512 + 3 * 512);
    expect(bitmap(0).toString('hex', 0, 2)).toBe('2e00'); // sectors 2, 4, 5, 6
    expect(
      bitmap(0)
        .subarray(2)
        .every((byte) => byte === 0),
    ).toBe(true);
    expect(bitmap(1).toString('hex', 0, 2)).toBe('0080');
    expect(bitmap(2).toString('hex', 0, 2)).toBe('8000');
    expect(file.subarray(block(2) + 512, block(2) + 1024)).toEqual(Buffer.from(bytes.subarray(4 * MIB, 4 * MIB + 512)));
    expect(file.subarray(block(0) + 512 + 1024, block(0) + 512 + 1536)).toEqual(
      Buffer.from(bytes.subarray(1024, 1536)),
    );
  });

  test('never ask the disk for what it calls absent', async () => {
    const aligned = modelDisk(bytes, [
      { offset: 1024, length: 512, kind: 'data' },
      { offset: 2 * MIB, length: 2 * MIB, kind: 'zero' },
    ]);
    const { chunks } = await vhdStream(aligned, { parent: PARENT });
    await using reread = await openVhd(memorySource(await collect(chunks)));
    expect(await toArray(reread.extents())).toEqual([
      { offset: 0, length: 1024, kind: 'absent' },
      { offset: 1024, length: 512, kind: 'data' },
      { offset: 1536, length: 2 * MIB - 1536, kind: 'absent' },
      { offset: 2 * MIB, length: 2 * MIB, kind: 'data' }, // zeros travel as stored zeros
      { offset: 4 * MIB, length: 2 * MIB, kind: 'absent' },
    ]);
  });

  test('read the sectors that zeros share with something else', async () => {
    const mixed = patterned(2048);
    mixed.fill(0, 100, 1636);
    const whole = memoryDisk(mixed);
    const told = modelDisk(mixed, [{ offset: 100, length: 1536, kind: 'zero' }]);
    const { chunks } = await vhdStream({ ...told, readInto: whole.readInto }, { parent: PARENT });
    await using reread = await openVhd(memorySource(await collect(chunks)));
    expect(await toArray(reread.extents())).toEqual([{ offset: 0, length: 2048, kind: 'data' }]);
    expect(await bytesOf(reread)).toEqual(mixed);
  });

  test('a dynamic VHD of such a disk is refused: it would claim zeros', async () => {
    await rejection(vhdStream(disk, { type: 'dynamic' }), 'VHD_PARENT_NEEDED');
  });
});

describe('from a stream of blocks', () => {
  const size = 7 * MIB;
  const bytes = sparse(size, 0, 3 * MIB, 7 * MIB - 512);
  const options = { uuid: UUID, timestamp: WHEN };

  test('the bytes are the same as from the disk, however the data arrives', async () => {
    const disk = memoryDisk(bytes);
    const expected = await vhdStream(disk, options);
    for (const blockSize of [512 * 100, MIB, 3 * MIB]) {
      const stream = vhdStreamFromBlocks(
        { ...options, size, blockIndexes: expected.blockIndexes },
        readBlocks(disk, { blockSize }),
      );
      expect(stream.length).toBe(expected.length);
      const again = (await vhdStream(disk, options)).chunks;
      expect(Buffer.compare(await collect(stream.chunks), await collect(again))).toBe(0);
    }
  });

  test('announced blocks that do not arrive are zeros, or unmarked', async () => {
    const block = { offset: 2 * MIB + 512, data: patterned(512) };
    const dynamic = vhdStreamFromBlocks({ size, blockIndexes: [3, 1, 0] }, given(block));
    await using disk = await openVhd(memorySource(await collect(dynamic.chunks)));
    expect([...disk.blockIndexes!]).toEqual([0, 1, 3]);
    expect((await compareDisks(disk, memoryDisk(placed(size, block)))).equal).toBe(true);
    const delta = vhdStreamFromBlocks({ size, blockIndexes: [3, 1, 0], parent: PARENT }, given(block));
    await using child = await openVhd(memorySource(await collect(delta.chunks)));
    const known = (await toArray(child.extents())).filter(({ kind }) => kind !== 'absent');
    expect(known).toEqual([{ offset: block.offset, length: 512, kind: 'data' }]);
  });

  test.each([
    ['VHD_BLOCK_UNPLANNED', [{ offset: 2 * MIB, data: patterned(512) }], {}],
    ['VHD_BLOCK_UNPLANNED', [{ offset: 6 * MIB, data: patterned(512) }], {}],
    [
      'VHD_STREAM_ORDER',
      [
        { offset: 512, data: patterned(512) },
        { offset: 0, data: patterned(512) },
      ],
      {},
    ],
    [
      'VHD_STREAM_ORDER',
      [
        { offset: 0, data: patterned(512) },
        { offset: 511, data: patterned(512) },
      ],
      {},
    ],
    ['VHD_STREAM_ORDER', [{ offset: size - 512, data: patterned(513) }], {}],
    ['VHD_STREAM_UNALIGNED', [{ offset: 0, data: patterned(511) }], { parent: PARENT }],
  ])('refuses with %s', async (code, blocks, more) => {
    const stream = vhdStreamFromBlocks({ size, blockIndexes: [0], ...more }, given(...blocks));
    await rejection(collect(stream.chunks), code);
  });
});

function placed(size: number, { offset, data }: Block): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes.set(data, offset);
  return bytes;
}

describe('a file', () => {
  test('leaves out what turns out to be zeros, and equals the stream of the same blocks', async () => {
    const size = 9 * MIB;
    const bytes = sparse(size, 100, 8 * MIB);
    const path = join(await tempDir(), 'a.vhd');
    async function* everything() {
      for (let at = 0; at < size; at += 777_777) yield { offset: at, data: bytes.slice(at, at + 777_777) };
    }
    const offsets: number[] = [];
    const written = await writeVhd({ size, blocks: everything() }, path, {
      uuid: UUID,
      timestamp: WHEN,
      onOffset: (offset) => offsets.push(offset),
    });
    expect([...written.blockIndexes]).toEqual([0, 4]);
    expect(offsets).toEqual([2, 4, 6, 8, 10].map((n) => n * MIB));
    const file = await readFile(path);
    expect(file.byteLength).toBe(written.length);
    const { chunks } = await vhdStream(memoryDisk(bytes), { uuid: UUID, timestamp: WHEN });
    expect(Buffer.compare(file, await collect(chunks))).toBe(0);
  });

  test('is not written over, and is gone when writing fails', async () => {
    const dir = await tempDir();
    const there = join(dir, 'there.vhd');
    await writeFile(there, 'mine');
    await expect(writeVhd(memoryDisk(new Uint8Array(512)), there)).rejects.toMatchObject({ code: 'EEXIST' });
    expect(await readFile(there, 'utf8')).toBe('mine');
    const failing = join(dir, 'failing.vhd');
    async function* broken(): AsyncGenerator<Block, void> {
      yield { offset: 0, data: patterned(512) };
      throw new Error('the source broke');
    }
    await expect(writeVhd({ size: MIB, blocks: broken() }, failing)).rejects.toThrow('the source broke');
    await expect(stat(failing)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('above 2040 GiB is refused with both numbers, before anything is made', async () => {
    const path = join(await tempDir(), 'large.vhd');
    const size = MAX_VHD_SIZE + 512;
    const error = await rejection(writeVhd({ size, blocks: given() }, path), 'VHD_TOO_LARGE');
    expect(error.message).toContain(`${MAX_VHD_SIZE}`);
    expect(error.message).toContain(`${size}`);
    await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(writeVhd({ size: 513, blocks: given() }, path)).rejects.toThrow(RangeError);
    await expect(writeVhd({ size: 0, blocks: given() }, path)).rejects.toThrow(RangeError);
  });

  test('a parent must be a sibling by its plain name', async () => {
    const disk = modelDisk(new Uint8Array(512), []);
    for (const name of ['', '.', '..', '../a', 'a/b', 'a\\b', '/a', 'C:a', 'a\0', 'x'.repeat(257)]) {
      await expect(vhdStream(disk, { parent: { uuid: UUID, name } })).rejects.toThrow(RangeError);
    }
    await expect(vhdStream(disk, { uuid: UUID, parent: { uuid: UUID, name: 'a' } })).rejects.toThrow(RangeError);
    await expect(vhdStream(disk, { type: 'differencing' })).rejects.toThrow(RangeError);
    await expect(vhdStream(disk, { type: 'dynamic', parent: PARENT })).rejects.toThrow(RangeError);
    await expect(vhdStream(disk, { parent: PARENT, uuid: 'no' })).rejects.toThrow(RangeError);
  });
});

describe('other programs agree', () => {
  const SIZES = [512, 2 * MIB - 512, 2 * MIB, 2 * MIB + 512, 9 * MIB + 1536];

  test.runIf(hasTool('qemu-img')).each(SIZES)('qemu-img, on %i bytes', async (size) => {
    const dir = await tempDir();
    const bytes = sparse(size, 0, size - 512);
    await writeFile(join(dir, 'a.raw'), bytes);
    await writeVhd(memoryDisk(bytes), join(dir, 'a.vhd'));
    const info = JSON.parse(run('qemu-img', ['info', '--output=json', join(dir, 'a.vhd')]));
    expect(info).toMatchObject({ format: 'vpc', 'virtual-size': size });
    run('qemu-img', ['compare', '-f', 'vpc', '-F', 'raw', join(dir, 'a.vhd'), join(dir, 'a.raw')]);
  });

  test.runIf(hasTool('7z')).each(SIZES)('7z, on a chain of three with %i bytes', async (size) => {
    const dir = await tempDir();
    const first = sparse(size, 0, size - 512);
    const base = await writeVhd(memoryDisk(first), join(dir, 'base.vhd'));
    const second = first.slice();
    second.fill(7, size - 512);
    const middle = await writeVhd(
      modelDisk(second, [{ offset: size - 512, length: 512, kind: 'data' }]),
      join(dir, 'middle.vhd'),
      {
        parent: { uuid: base.uuid, name: 'base.vhd' },
      },
    );
    const third = second.slice();
    third.fill(0, 0, 512);
    await writeVhd(modelDisk(third, [{ offset: 0, length: 512, kind: 'zero' }]), join(dir, 'leaf.vhd'), {
      parent: { uuid: middle.uuid, name: 'middle.vhd' },
    });
    if (size === 512) second.set(third);
    const extracted = execFileSync('7z', ['x', '-so', join(dir, 'leaf.vhd')], { maxBuffer: 64 * MIB, stdio: 'pipe' });
    expect(Buffer.compare(extracted, third)).toBe(0);
    run('7z', ['t', join(dir, 'middle.vhd')]);
    await using chain = await openVhdChain(join(dir, 'leaf.vhd'));
    expect(Buffer.compare(await bytesOf(chain), third)).toBe(0);
  });

  test.runIf(hasTool('vhdiinfo'))('vhdiinfo sees the link', async () => {
    const path = join(await tempDir(), 'child.vhd');
    await writeVhd(modelDisk(new Uint8Array(MIB), []), path, { uuid: UUID, parent: PARENT });
    const info = run('vhdiinfo', [path]);
    expect(info).toMatch(/Disk type\s*: Differential/);
    expect(info).toMatch(/Media size\s*: .*\(1048576 bytes\)/);
    expect(info).toContain(`Identifier\t\t: ${UUID}`);
    expect(info).toContain(`Parent identifier\t: ${PARENT.uuid}`);
    expect(info).toMatch(/Parent filename\s*: base\.vhd/);
  });
});

function run(tool: string, args: readonly string[]): string {
  return execFileSync(tool, args, { encoding: 'utf8', stdio: 'pipe' });
}
