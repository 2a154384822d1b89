import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { byteReader } from '../../src/bytes/index.ts';
import { decodeVhd, type ImportTarget } from '../../src/simulator/vhd-decoding.ts';
import { encodeVhd } from '../../src/simulator/vhd-encoding.ts';
import { CHECKSUM_AT, uuidText, vhdChecksum, vhdFooter, vhdHeader } from '../../src/simulator/vhd-layout.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { type Chunking, chunksOf, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;
const STRIDE = BLOCK + 512;
const PARENT = { uuid: '00112233-4455-6677-8899-aabbccddeeff', path: '/run/sr-mount/sr/base.vhd' };

/** A disk of `size` bytes with a pattern in some of its blocks; `blocks` may name more than are filled. */
function disk(size: number, blocks: readonly number[], parent?: typeof PARENT) {
  const content = new Uint8Array(size);
  for (const block of blocks) {
    content.set(patterned(Math.min(BLOCK, size - block * BLOCK), block + 1), block * BLOCK);
  }
  const source = {
    size,
    blocks,
    parent,
    async readInto(target: Uint8Array, offset: number) {
      target.set(content.subarray(offset, offset + target.byteLength));
    },
  };
  return { content, source };
}

async function encoded(size: number, blocks: readonly number[], parent?: typeof PARENT): Promise<Uint8Array> {
  const { length, chunks } = encodeVhd(disk(size, blocks, parent).source);
  const bytes = await collect(chunks);
  expect(bytes.byteLength).toBe(length);
  return bytes;
}

function target(size: number, fill = 0): ImportTarget & { readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(size).fill(fill);
  return {
    size,
    bytes,
    async write(data, offset) {
      bytes.set(data, offset);
    },
  };
}

async function decode(vhd: Uint8Array, into: ImportTarget, length = vhd.byteLength, chunking: Chunking = 'whole') {
  await decodeVhd(byteReader(chunksOf(vhd, chunking)), length, into);
}

/** Puts the right checksums on a changed front footer and header. */
function sealed(vhd: Uint8Array): Uint8Array {
  const view = new DataView(vhd.buffer, vhd.byteOffset, vhd.byteLength);
  view.setUint32(64, vhdChecksum(vhd.subarray(0, 512), CHECKSUM_AT.footer));
  view.setUint32(512 + 36, vhdChecksum(vhd.subarray(512, 1536), CHECKSUM_AT.header));
  return vhd;
}

describe('the stream a host sends', () => {
  test('has footer, header, a zero sector, the table at 2048, ascending blocks and the same footer again', async () => {
    const vhd = await encoded(5 * BLOCK, [1, 4]);
    expect(vhd.byteLength).toBe(2048 + 512 + 2 * STRIDE + 512);
    expect(vhd.subarray(-512)).toEqual(vhd.subarray(0, 512));
    expect(vhd.subarray(1536, 2048)).toEqual(new Uint8Array(512));
    expect(vhdFooter.decode(vhd.subarray(0, 512))).toMatchObject({
      cookie: 'conectix',
      features: 2,
      timestamp: 0,
      creator: 'caml',
      creatorVersion: 1,
      creatorHost: 0,
      originalSize: 5 * BLOCK,
      currentSize: 5 * BLOCK,
      cylinders: 301,
      heads: 4,
      sectorsPerTrack: 17,
      diskType: 3,
    });
    expect(vhdHeader.decode(vhd.subarray(512, 1536))).toMatchObject({
      cookie: 'cxsparse',
      tableOffset: 2048n,
      tableEntries: 5,
      blockSize: BLOCK,
      parentUuid: new Uint8Array(16),
      locators: new Uint8Array(192),
    });
    const table = new DataView(vhd.buffer, vhd.byteOffset + 2048, 512);
    const absent = 0xffffffff;
    expect([0, 1, 2, 3, 4, 5, 127].map((entry) => table.getUint32(entry * 4))).toEqual([
      absent,
      5,
      absent,
      absent,
      5 + STRIDE / 512,
      absent,
      absent,
    ]);
    expect(vhd.subarray(2560, 3072)).toEqual(new Uint8Array(512).fill(0xff));
    expect(Buffer.compare(vhd.subarray(3072, 3072 + BLOCK), patterned(BLOCK, 2))).toBe(0);
  });

  test('has a new uuid each time', async () => {
    const uuids = await Promise.all(
      [1, 2].map(async () => uuidText(vhdFooter.decode((await encoded(BLOCK, [])).subarray(0, 512)).uuid)),
    );
    expect(uuids[0]).not.toBe(uuids[1]);
    expect(uuids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  test('names its base by the uuid in storage and the path on the host, with a locator that leads nowhere', async () => {
    const vhd = await encoded(2 * BLOCK, [0], PARENT);
    expect(vhdFooter.decode(vhd.subarray(0, 512)).diskType).toBe(4);
    const header = vhdHeader.decode(vhd.subarray(512, 1536));
    expect(uuidText(header.parentUuid)).toBe(PARENT.uuid);
    expect(Buffer.from(header.parentName).swap16().toString('utf16le').replaceAll('\0', '')).toBe(PARENT.path);
    expect(Buffer.from(header.locators.subarray(0, 4)).toString()).toBe('MacX');
    const locator = new DataView(header.locators.buffer, header.locators.byteOffset, 24);
    expect(locator.getUint32(8)).toBe('file://./base.vhd'.length);
    expect(locator.getBigUint64(16)).toBe(1536n);
    expect(header.locators.subarray(24)).toEqual(new Uint8Array(168));
    expect(vhd.subarray(1536, 2048)).toEqual(new Uint8Array(512));
  });

  test('leaves stale bytes of the block before past the end of a disk that is no multiple of 2 MiB', async () => {
    const vhd = await encoded(BLOCK + 512, [0, 1]);
    const last = vhd.subarray(2560 + STRIDE + 512, 2560 + 2 * STRIDE);
    expect(last.subarray(0, 512)).toEqual(patterned(512, 2));
    expect(Buffer.compare(last.subarray(512), patterned(BLOCK, 1).subarray(512))).toBe(0);
  });

  test('knows the geometries that were measured', async () => {
    const geometryOf = (size: number) => {
      const { chunks } = encodeVhd({ size, blocks: [], readInto: async () => {} });
      return chunks[Symbol.asyncIterator]()
        .next()
        .then(({ value }) => vhdFooter.decode((value as Uint8Array).subarray(0, 512)))
        .then(({ cylinders, heads, sectorsPerTrack }) => [cylinders, heads, sectorsPerTrack]);
    };
    const GIB = 1024 * MIB;
    expect(await geometryOf(8 * MIB)).toEqual([240, 4, 17]);
    expect(await geometryOf(10 * MIB)).toEqual([301, 4, 17]);
    expect(await geometryOf(10 * GIB)).toEqual([20805, 16, 63]);
    expect(await geometryOf(126 * GIB)).toEqual([64764, 16, 255]);
    expect(await geometryOf(2040 * GIB)).toEqual([65535, 16, 255]);
  });

  test('refuses blocks that do not ascend or do not exist', async () => {
    for (const blocks of [[1, 1], [1, 0], [2]]) await expect(encoded(2 * BLOCK, blocks)).rejects.toThrow(RangeError);
  });

  test.runIf(hasTool('qemu-img'))('is read by qemu-img as the same disk', async () => {
    await using dir = await makeTempDir();
    for (const [size, blocks] of [
      [5 * BLOCK, [0, 3, 4]],
      [130 * BLOCK, [1, 129]],
      [BLOCK + 3 * 512, [1]],
      [BLOCK, []],
    ] as const) {
      const { content } = disk(size, blocks);
      await writeFile(dir.file('a.vhd'), await encoded(size, blocks));
      await writeFile(dir.file('a.raw'), content);
      const image = `driver=vpc,file.filename=${dir.file('a.vhd')},force_size_calc=current_size`;
      const { stdout } = await run('qemu-img', [
        'compare',
        '--image-opts',
        image,
        `driver=raw,file.filename=${dir.file('a.raw')}`,
      ]);
      expect(stdout).toContain('identical');
    }
  });

  test.runIf(hasTool('7z'))('is tested and extracted by 7-Zip as the same disk', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('a.vhd'), await encoded(5 * BLOCK, [0, 3]));
    await run('7z', ['t', '-tvhd', dir.file('a.vhd')]);
    await run('7z', ['x', '-tvhd', '-so', dir.file('a.vhd')], { encoding: 'buffer', maxBuffer: 64 * MIB }).then(
      ({ stdout }) => expect(Buffer.compare(stdout, disk(5 * BLOCK, [0, 3]).content)).toBe(0),
    );
  });
});

describe('the import', () => {
  test('gives back what was exported, whatever the blocks and the chunks of the stream', async () => {
    const shape = fc.record({
      size: fc.integer({ min: 1, max: 10 }),
      blocks: fc.uniqueArray(fc.nat(9), { maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(shape, fc.constantFrom<Chunking>('whole', 'odd'), async ({ size, blocks }, chunking) => {
        const present = blocks.filter((block) => block < size).sort((a, b) => a - b);
        const into = target(size * BLOCK);
        const vhd = await encoded(size * BLOCK, present);
        await decode(vhd, into, vhd.byteLength, chunking);
        expect(Buffer.compare(into.bytes, disk(size * BLOCK, present).content)).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  test('writes only sectors whose bit is set, and nothing where a block is absent', async () => {
    const vhd = await encoded(3 * BLOCK, [1], PARENT);
    vhd.fill(0, 2560, 3072);
    vhd[2560] = 0b0110_0000;
    vhd[3071] = 0b0000_0001;
    const into = target(3 * BLOCK, 0xee);
    await decode(vhd, into);
    const expected = new Uint8Array(3 * BLOCK).fill(0xee);
    const data = patterned(BLOCK, 2);
    expected.set(data.subarray(512, 1536), BLOCK + 512);
    expected.set(data.subarray(BLOCK - 512), 2 * BLOCK - 512);
    expect(Buffer.compare(into.bytes, expected)).toBe(0);
  });

  test('takes blocks in any virtual order, gaps between them, and an uuid, size or parent that is not true', async () => {
    const vhd = await encoded(2 * BLOCK, [0, 1]);
    const table = new DataView(vhd.buffer, vhd.byteOffset + 2048);
    const [first, second] = [table.getUint32(0), table.getUint32(4)];
    table.setUint32(0, second + 8);
    table.setUint32(4, first + 8);
    const gap = new Uint8Array(8 * 512).fill(0x55);
    const moved = new Uint8Array(Buffer.concat([vhd.subarray(0, 2560), gap, vhd.subarray(2560)]));
    moved.fill(7, 68, 84);
    const into = target(2 * BLOCK);
    await decode(sealed(moved), into);
    expect(Buffer.compare(into.bytes.subarray(0, BLOCK), patterned(BLOCK, 2))).toBe(0);
    expect(Buffer.compare(into.bytes.subarray(BLOCK), patterned(BLOCK, 1))).toBe(0);
  });

  test('fails at set bits beyond the end of the target; what came before is written', async () => {
    const vhd = await encoded(2 * BLOCK, [0, 1]);
    const into = target(BLOCK + 512);
    await expect(decode(vhd, into)).rejects.toMatchObject({ code: 'VHD_BEYOND_END' });
    expect(Buffer.compare(into.bytes.subarray(0, BLOCK), patterned(BLOCK, 1))).toBe(0);
    vhd.fill(0, 2560 + STRIDE, 3072 + STRIDE);
    vhd[2560 + STRIDE] = 0x80;
    await decode(vhd, into);
    expect(into.bytes.subarray(BLOCK)).toEqual(patterned(512, 2));
  });

  test('gives way to the later of two table entries for one sector', async () => {
    const vhd = await encoded(2 * BLOCK, [0]);
    new DataView(vhd.buffer, vhd.byteOffset + 2048).setUint32(4, 5);
    const into = target(2 * BLOCK);
    await decode(vhd, into);
    expect(into.bytes.subarray(0, 512)).toEqual(new Uint8Array(512));
    expect(into.bytes.subarray(BLOCK, BLOCK + 512)).toEqual(patterned(512, 1));
  });

  test('needs the exact length', async () => {
    const vhd = await encoded(2 * BLOCK, [1]);
    for (const [length, code] of [
      [vhd.byteLength + 1, 'STREAM_ENDED'],
      [vhd.byteLength + 512, 'STREAM_ENDED'],
      [vhd.byteLength - 512, 'VHD_ORDER'],
      [2 * BLOCK, 'STREAM_ENDED'] /* the device's size, where no length was sent */,
      [1024 * MIB, 'STREAM_ENDED'],
    ] as const) {
      await expect(decode(vhd, target(2 * BLOCK), length)).rejects.toMatchObject({ code });
    }
  });

  test.each<[string, string, (vhd: Uint8Array, view: DataView) => Uint8Array | undefined]>([
    ['an empty body', 'STREAM_ENDED', () => new Uint8Array(0)],
    ['a body cut in its table', 'STREAM_ENDED', (vhd) => vhd.subarray(0, 2100)],
    ['a body cut in a block', 'STREAM_ENDED', (vhd) => vhd.subarray(0, 10_000)],
    ['a body cut in its last footer', 'STREAM_ENDED', (vhd) => vhd.subarray(0, -100)],
    ['another cookie', 'VHD_COOKIE', (vhd) => void vhd.set([0x58])],
    ['a footer of another version', 'VHD_VERSION', (_, view) => void view.setUint32(12, 0x20000)],
    ['a disk type that is none', 'VHD_TYPE', (_, view) => void view.setUint32(60, 5)],
    ['a header before the end of the footer', 'VHD_ORDER', (_, view) => void view.setBigUint64(16, 256n)],
    ['a fixed disk', 'STREAM_ENDED', (_, view) => void view.setBigUint64(16, 0xffff_ffff_ffff_ffffn)],
    ['another header cookie', 'VHD_COOKIE', (vhd) => void vhd.set([0x58], 512)],
    ['a header that points on', 'VHD_OFFSET', (_, view) => void view.setBigUint64(520, 0xffffffffn)],
    ['a header of another version', 'VHD_VERSION', (_, view) => void view.setUint32(512 + 24, 0x20000)],
    ['a block size that is no power of two', 'VHD_BLOCK_SIZE', (_, view) => void view.setUint32(544, 3 * MIB)],
    ['a block size of zero', 'VHD_BLOCK_SIZE', (_, view) => void view.setUint32(544, 0)],
    ['a locator of a platform unknown', 'VHD_LOCATOR', (vhd) => void vhd.set([0x58], 512 + 576)],
    ['a name with half a surrogate pair', 'VHD_PARENT_NAME', (_, view) => void view.setUint16(576, 0xd800)],
    ['a table of 16 GiB', 'STREAM_ENDED', (_, view) => void view.setUint32(540, 0xffffffff)],
    ['a table over the header', 'VHD_ORDER', (_, view) => void view.setBigUint64(528, 1024n)],
    ['a block inside the table', 'VHD_ORDER', (_, view) => void view.setUint32(2052, 4)],
    ['a block past the end', 'STREAM_ENDED', (_, view) => void view.setUint32(2052, 0xfffffffe)],
  ])('refuses %s', async (_name, code, spoil) => {
    const vhd = await encoded(2 * BLOCK, [1]);
    const cut = spoil(vhd, new DataView(vhd.buffer, vhd.byteOffset, vhd.byteLength));
    const body = cut ?? sealed(vhd);
    await expect(decode(body, target(2 * BLOCK), vhd.byteLength)).rejects.toMatchObject({ code });
  });

  test.each([0, 512, -512])('refuses a bad checksum in the structure at %i', async (at) => {
    const vhd = await encoded(BLOCK, []);
    const structure = at < 0 ? vhd.byteLength + at : at;
    vhd[structure + 50] = (vhd[structure + 50] ?? 0) ^ 1;
    await expect(decode(vhd, target(BLOCK))).rejects.toMatchObject({ code: 'VHD_CHECKSUM' });
  });

  test.runIf(hasTool('qemu-img'))("reads qemu-img's VHDs", async () => {
    await using dir = await makeTempDir();
    const content = disk(8 * BLOCK, [1, 5]).content;
    await writeFile(dir.file('a.raw'), content);
    const options = ['convert', '-f', 'raw', '-O', 'vpc', '-o', 'subformat=dynamic,force_size=on'];
    await run('qemu-img', [...options, dir.file('a.raw'), dir.file('a.vhd')]);
    const into = target(8 * BLOCK);
    await decode(await readFile(dir.file('a.vhd')), into);
    expect(Buffer.compare(into.bytes, content)).toBe(0);
  });
});
