// What real tools do with broken files was measured once; the verdicts here are ours, row by row.
import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { checkVhd, openVhd, readVhdStream } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf } from '../support/sources.ts';
import { bytesOf, poured } from './support/disk-bytes.ts';
import { ALL, bits, sum, type TinyVhd, tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;
const DATA = patterned(2 * MIB);
const BLOCK = 2 * MIB + 512;
/** The first block, behind a table of one sector at 1536. */
const FIRST = 2048;
const base: TinyVhd = { size: 6 * MIB, blocks: [0, 2].map((index) => ({ index, bitmap: ALL, data: DATA })) };
const PARENT = { type: 4, parentUuid: '11111111-2222-3333-4444-555555555555', parentName: 'base.vhd' };

const make = (more: Partial<TinyVhd> = {}) => tinyVhd({ ...base, ...more });
const footer = (change: (view: DataView) => void) => make({ footer: change });
const header = (change: (view: DataView) => void, more: Partial<TinyVhd> = {}) => make({ header: change, ...more });
const table = (change: (view: DataView) => void) => make({ table: change });
/** Changes the finished bytes. */
function patched(change: (bytes: Uint8Array) => void, more: Partial<TinyVhd> = {}): Uint8Array {
  const bytes = make(more);
  change(bytes);
  return bytes;
}
const ascii = (text: string) => Buffer.from(text, 'latin1');
/** The last footer with another value; its checksum is right. */
const lastFooter = (change: (view: DataView) => void) =>
  patched((bytes) => {
    const tail = bytes.subarray(-512);
    change(new DataView(tail.buffer, tail.byteOffset, 512));
    sum(tail, 64);
  });

type Verdict = 'refused' | 'warned' | 'accepted';
interface Row {
  readonly row: string;
  readonly bytes: () => Uint8Array;
  readonly verdict: Verdict;
  /** Of the error, or of a warning. */
  readonly code?: string;
  /** Where a stream is judged otherwise. */
  readonly stream?: { readonly verdict: Verdict; readonly code?: string };
}
const refused = (code: string): { verdict: Verdict; code: string } => ({ verdict: 'refused', code });
const warned = (code: string): { verdict: Verdict; code: string } => ({ verdict: 'warned', code });
const accepted: { verdict: Verdict } = { verdict: 'accepted' };
const cut = (length: number) => () => make().subarray(0, length);
const big = 0xffff_ffff_ffff_fe00n;

// biome-ignore format: a table
const ROWS: readonly Row[] = [
  { row: '1 first footer: checksum', bytes: () => patched((b) => b.fill(7, 30, 31)), ...warned('VHD_FOOTER_CHECKSUM'), stream: refused('VHD_FOOTER_CHECKSUM') },
  { row: '2 last footer: checksum', bytes: () => patched((b) => b.fill(7, -482, -481)), ...warned('VHD_FOOTER_CHECKSUM'), stream: refused('VHD_FOOTER_MISSING') },
  { row: '3 both footers: checksum', bytes: () => patched((b) => { b.fill(7, 30, 31); b.fill(7, -482, -481); }), ...refused('VHD_FOOTER_CHECKSUM') },
  { row: '4 header: checksum', bytes: () => patched((b) => b.fill(7, 600, 601)), ...refused('VHD_HEADER_CHECKSUM') },
  { row: '5 footers differ', bytes: () => lastFooter((v) => v.setUint32(24, 5)), ...refused('VHD_FOOTERS_DIFFER') },
  { row: '5b footers differ in hidden only', bytes: () => lastFooter((v) => v.setUint8(85, 1)), ...warned('VHD_FOOTERS_DIFFER'), stream: refused('VHD_FOOTERS_DIFFER') },
  { row: '5c footers differ in UUID only', bytes: () => lastFooter((v) => v.setUint8(70, 1)), ...warned('VHD_FOOTERS_DIFFER'), stream: refused('VHD_FOOTERS_DIFFER') },
  { row: '6 last footer missing', bytes: () => make().subarray(0, -512), ...warned('VHD_FOOTER_MISSING'), stream: refused('STREAM_ENDED') },
  { row: '7 first footer zeroed', bytes: () => patched((b) => b.fill(0, 0, 512)), ...warned('VHD_FOOTER_MISSING'), stream: refused('VHD_NOT_VHD') },
  { row: '8 cut in the last block', bytes: cut(FIRST + BLOCK + 5000), ...refused('VHD_BLOCK_OUTSIDE'), stream: refused('STREAM_ENDED') },
  { row: '9 cut in the block table', bytes: cut(1540), ...refused('VHD_TABLE_OUTSIDE'), stream: refused('STREAM_ENDED') },
  { row: '10 footer of 511 bytes', bytes: () => make().subarray(0, -1), ...accepted },
  { row: '11 data offset past the end', bytes: () => footer((v) => v.setBigUint64(16, 1n << 40n)), ...refused('VHD_DATA_OFFSET'), stream: refused('STREAM_ENDED') },
  { row: '12 data offset 0', bytes: () => footer((v) => v.setBigUint64(16, 0n)), ...refused('VHD_DATA_OFFSET') },
  { row: '13 data offset above 2^63', bytes: () => footer((v) => v.setBigUint64(16, big)), ...refused('VHD_DATA_OFFSET') },
  { row: '14 table offset past the end', bytes: () => header((v) => v.setBigUint64(16, 1n << 40n)), ...refused('VHD_TABLE_OUTSIDE'), stream: refused('STREAM_ENDED') },
  { row: '15 table offset above 2^53', bytes: () => header((v) => v.setBigUint64(16, (1n << 53n) + 512n)), ...refused('VHD_TABLE_OFFSET') },
  { row: '16 table over the header', bytes: () => header((v) => v.setBigUint64(16, 1024n)), ...refused('VHD_TABLE_OFFSET') },
  { row: '16b table over the first footer', bytes: () => header((v) => v.setBigUint64(16, 0n)), ...refused('VHD_TABLE_OFFSET') },
  { row: '17 table not at a sector', bytes: () => header((v) => v.setBigUint64(16, 1537n)), ...refused('VHD_TABLE_OFFSET') },
  { row: '18 too few table entries', bytes: () => header((v) => v.setUint32(28, 2)), ...refused('VHD_TABLE_ENTRIES') },
  { row: '19 2^32 - 1 table entries', bytes: () => header((v) => v.setUint32(28, 0xffffffff)), ...refused('VHD_TABLE_OUTSIDE'), stream: refused('VHD_BLOCK_OVERLAP') },
  { row: '20 no table entries', bytes: () => header((v) => v.setUint32(28, 0)), ...refused('VHD_TABLE_ENTRIES') },
  { row: '21 block size 0', bytes: () => header((v) => v.setUint32(32, 0)), ...refused('VHD_BLOCK_SIZE') },
  { row: '22 block size 3 MiB', bytes: () => header((v) => v.setUint32(32, 3 * MIB)), ...refused('VHD_BLOCK_SIZE') },
  { row: '23 block size 2 GiB', bytes: () => header((v) => v.setUint32(32, 2 ** 31)), ...refused('VHD_BLOCK_SIZE') },
  { row: '24 block size 256', bytes: () => header((v) => v.setUint32(32, 256)), ...refused('VHD_BLOCK_SIZE') },
  { row: '25 block size 512 KiB, entries for 2 MiB', bytes: () => header((v) => v.setUint32(32, MIB / 2)), ...refused('VHD_TABLE_ENTRIES') },
  { row: '25b block size 512 KiB', bytes: () => make({ size: MIB, blockSize: MIB / 2, blocks: [] }), ...warned('VHD_BLOCK_SIZE') },
  { row: '25c a table of 2 GiB', bytes: () => make({ footer: (v) => v.setBigUint64(48, 2000n << 30n), header: (v) => { v.setUint32(28, 0xffffffff); v.setUint32(32, 4096); } }), ...refused('VHD_TABLE_ENTRIES') },
  { row: '26 header version 2', bytes: () => header((v) => v.setUint32(24, 0x20000)), ...refused('VHD_VERSION') },
  { row: '27 footer version 2', bytes: () => footer((v) => v.setUint32(12, 0x20000)), ...refused('VHD_VERSION') },
  { row: '28 disk type 5', bytes: () => make({ type: 5 }), ...refused('VHD_DISK_TYPE') },
  { row: '29 fixed with a data offset', bytes: () => footer((v) => v.setUint32(60, 2)), ...refused('VHD_DATA_OFFSET') },
  { row: '30 reserved feature clear', bytes: () => footer((v) => v.setUint32(8, 0)), ...warned('VHD_FEATURES') },
  { row: '31 current size 2^60', bytes: () => footer((v) => v.setBigUint64(48, 1n << 60n)), ...refused('VHD_TOO_LARGE') },
  { row: '31b current size 2041 GiB', bytes: () => footer((v) => v.setBigUint64(48, 2041n << 30n)), ...refused('VHD_TOO_LARGE') },
  { row: '32 current size not in sectors', bytes: () => footer((v) => v.setBigUint64(48, BigInt(6 * MIB - 5))), ...warned('VHD_SIZE') },
  { row: '33 current size 0', bytes: () => footer((v) => v.setBigUint64(48, 0n)), ...refused('VHD_SIZE') },
  { row: '34 geometry 0/0/0', bytes: () => footer((v) => v.setUint32(56, 0)), ...warned('VHD_GEOMETRY') },
  { row: '35 geometry above the size', bytes: () => footer((v) => v.setUint16(56, 60000)), ...warned('VHD_GEOMETRY') },
  { row: '36 entry past the end', bytes: () => table((v) => v.setUint32(8, 9000000)), ...refused('VHD_BLOCK_OUTSIDE'), stream: refused('STREAM_ENDED') },
  { row: '37 entry 0xfffffffe', bytes: () => table((v) => v.setUint32(8, 0xfffffffe)), ...refused('VHD_BLOCK_OUTSIDE'), stream: refused('STREAM_ENDED') },
  { row: '38 entry 0', bytes: () => table((v) => v.setUint32(0, 0)), ...refused('VHD_BLOCK_OVERLAP') },
  { row: '39 entry inside the table', bytes: () => table((v) => v.setUint32(0, 3)), ...refused('VHD_BLOCK_OVERLAP') },
  { row: '40 two equal entries', bytes: () => table((v) => v.setUint32(4, FIRST / 512)), ...refused('VHD_BLOCK_OVERLAP') },
  { row: '41 blocks overlap', bytes: () => table((v) => v.setUint32(4, FIRST / 512 + 100)), ...refused('VHD_BLOCK_OVERLAP') },
  { row: '41b blocks overlap by a sector', bytes: () => make({ blocks: base.blocks!.slice(0, 1), tailGap: BLOCK, table: (v) => v.setUint32(4, (FIRST + BLOCK) / 512 - 1) }), ...refused('VHD_BLOCK_OVERLAP') },
  { row: '42 blocks in descending order', bytes: () => make({ blocks: [...base.blocks!].reverse() }), ...accepted, stream: refused('VHD_STREAM_ORDER') },
  { row: '43 creator tap without a batmap', bytes: () => make({ creator: 'tap\0', creatorVersion: 0x10003 }), ...warned('VHD_BATMAP'), stream: accepted },
  { row: '44 batmap with a wrong checksum', bytes: () => batmapped(1234), ...warned('VHD_BATMAP'), stream: accepted },
  { row: '44b batmap as it should be', bytes: () => batmapped(0xffffff00), ...accepted },
  { row: '45 unknown locator', bytes: () => make({ ...PARENT, locators: [{ code: 'Oops', text: ascii('a') }] }), ...warned('VHD_LOCATOR'), stream: accepted },
  { row: '46 footer cookies', bytes: () => footer((v) => v.setUint8(0, 1)), ...refused('VHD_NOT_VHD') },
  { row: '46b header cookie', bytes: () => header((v) => v.setUint8(0, 1)), ...refused('VHD_HEADER_COOKIE') },
  { row: '47 header data offset of 32 bits', bytes: () => header((v) => v.setBigUint64(8, 0xffffffffn)), ...warned('VHD_DATA_OFFSET') },
  { row: '48 made in the future', bytes: () => footer((v) => v.setUint32(24, 0xf0000000)), ...warned('VHD_TIMESTAMP') },
  { row: '49 UUID of zeros', bytes: () => make({ uuid: '00000000-0000-0000-0000-000000000000' }), ...warned('VHD_UUID') },
  { row: '50 junk before the footer', bytes: () => make({ tailGap: MIB }), ...warned('VHD_UNUSED_SPACE'), stream: accepted },
  { row: '51 reserved bytes of the footer', bytes: () => footer((v) => v.setUint8(500, 1)), ...warned('VHD_RESERVED') },
  { row: '51b reserved bytes of the header', bytes: () => header((v) => v.setUint8(900, 1)), ...warned('VHD_RESERVED') },
  { row: '52 nothing', bytes: cut(0), ...refused('VHD_TOO_SHORT'), stream: refused('STREAM_ENDED') },
  { row: '52b 100 bytes', bytes: cut(100), ...refused('VHD_TOO_SHORT'), stream: refused('STREAM_ENDED') },
  { row: '52c a footer alone', bytes: cut(512), ...refused('VHD_DATA_OFFSET'), stream: refused('STREAM_ENDED') },
  { row: '53 another original size', bytes: () => footer((v) => v.setBigUint64(40, 512n)), ...accepted },
  { row: '54 poisoned', bytes: () => patched((b) => { b.set(ascii('v_poison')); b.set(ascii('v_poison'), b.length - 512); }), ...refused('VHD_DISABLED') },
  { row: '55 last footer is 0xc7', bytes: () => patched((b) => b.fill(0xc7, -512)), ...warned('VHD_FOOTER_MISSING'), stream: refused('VHD_FOOTER_MISSING') },
  { row: '61 locator of 4 GiB', bytes: () => header((v) => { v.setUint32(576 + 8, 0xffffffff); v.setBigUint64(576 + 16, big); }, { ...PARENT, locators: [{ code: 'W2ru', text: ascii('a') }] }, ), ...warned('VHD_LOCATOR'), stream: accepted },
  { row: '61b locator of 5000 bytes', bytes: () => make({ ...PARENT, locators: [{ code: 'W2ru', text: DATA.subarray(0, 5000) }] }), ...warned('VHD_LOCATOR'), stream: accepted },
  { row: '62 bits beyond the end', bytes: () => make({ size: 5 * MIB }), ...accepted },
  { row: '63 a batmap that lies', bytes: () => batmapped(0xffffff00, bits(1)), ...accepted },
  { row: '64 VHDX', bytes: () => padded('vhdxfile'), ...refused('VHD_NOT_VHD') },
  { row: '64b QCOW2', bytes: () => padded('QFI\xfb\0\0\0\x03'), ...refused('VHD_NOT_VHD') },
  { row: '64c VMDK', bytes: () => padded('KDMV'), ...refused('VHD_NOT_VHD') },
  { row: '64d gzip', bytes: () => padded(gzipSync(Buffer.alloc(9)).toString('latin1')), ...refused('VHD_NOT_VHD') },
  { row: '64e tar', bytes: () => padded(`${'\0'.repeat(257)}ustar`), ...refused('VHD_NOT_VHD') },
];

function padded(text: string): Uint8Array {
  const bytes = new Uint8Array(4096);
  bytes.set(ascii(text));
  return bytes;
}

/** A file of `tap` with a batmap that claims a full block 0, right behind the table. */
function batmapped(checksum: number, bitmap: Uint8Array = ALL): Uint8Array {
  const bytes = make({
    creator: 'tap\0',
    creatorVersion: 0x10003,
    blocks: [{ index: 0, bitmap, data: DATA, gap: 1024 }],
  });
  const map = new DataView(bytes.buffer, 2048, 1024);
  bytes.set(ascii('tdbatmap'), 2048);
  map.setBigUint64(8, 2560n);
  map.setUint32(16, 1);
  map.setUint32(20, 0x10002);
  map.setUint32(24, checksum);
  map.setUint8(512, 0x80);
  if (checksum === 0xffffff00) map.setUint32(24, ~0x80 >>> 0);
  return bytes;
}

describe.each(ROWS)('row $row', ({ bytes, verdict, code, stream }) => {
  test('as a file', async () => {
    const report = await checkVhd(memorySource(bytes()), { level: 'bitmaps' });
    expect(() => JSON.stringify(report)).not.toThrow();
    expect(report.ok).toBe(verdict !== 'refused');
    if (verdict === 'refused') {
      const first = report.findings.find(({ severity }) => severity === 'error')!;
      expect(first.code).toBe(code);
      await expect(openVhd(memorySource(bytes()))).rejects.toMatchObject({ code, message: first.message });
      return;
    }
    const codes = verdict === 'warned' ? [code] : [];
    expect(report.findings.map((finding) => finding.code)).toEqual(codes);
    await using disk = await openVhd(memorySource(bytes()));
    expect(disk.warnings.map((finding) => finding.code)).toEqual(codes);
    if (disk.kind === 'dynamic') await bytesOf(disk);
  });

  test('as a stream', async () => {
    const expected = stream ?? { verdict, code };
    const reading = readVhdStream(chunksOf(bytes())).then(async (read) => {
      await poured(read.blocks, read.size);
      return read;
    });
    if (expected.verdict === 'refused') await expect(reading).rejects.toMatchObject({ code: expected.code });
    else {
      const codes = (await reading).warnings.map((finding) => finding.code);
      expect(codes).toEqual(expected.verdict === 'warned' ? [expected.code] : []);
    }
  });
});

test('no row is missing; those about parents are among the tests of chains', async () => {
  const numbers = (rows: Iterable<string>) => [...new Set([...rows].map((row) => Number.parseInt(row, 10)))];
  const chains = await readFile(new URL('./vhd-chain.test.ts', import.meta.url), 'utf8');
  const there = numbers([
    ...ROWS.map(({ row }) => row),
    ...[...chains.matchAll(/(?:'|row )(\d\d)\b/g)].map((hit) => hit[1]!),
  ]);
  expect(there.sort((a, b) => a - b)).toEqual(Array.from({ length: 64 }, (_, i) => i + 1));
});

test('row 63 shows what the sector bitmap marks, whatever the batmap claims', async () => {
  const { bytes } = ROWS.find(({ row }) => row.startsWith('63 '))!;
  const expected = new Uint8Array(base.size);
  expected.set(DATA.subarray(512, 1024), 512);
  await using disk = await openVhd(memorySource(bytes()));
  expect(Buffer.compare(await bytesOf(disk), expected)).toBe(0);
});

test.each([
  ['64', 'VHDX is not VHD'],
  ['64b', 'QCOW2 image'],
  ['64c', 'VMDK image'],
  ['64d', 'gzip data'],
  ['64e', 'tar archive'],
  ['54', 'disabled by XenServer'],
  ['55', 'open in tapdisk'],
])('row %s says what it is', async (row, text) => {
  const { bytes } = ROWS.find((candidate) => candidate.row.startsWith(`${row} `))!;
  expect((await checkVhd(memorySource(bytes()))).findings[0]!.message).toContain(text);
});
