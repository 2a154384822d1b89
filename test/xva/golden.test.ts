import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { checkingXva, checkXva, openXva, peekXvaCompression, readXvaStream, xvaVm } from '../../src/xva/index.ts';
import { CHUNKINGS, chunksInOneMemory, chunksOf, collect, SOURCE_KINDS, sourceOf } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';
import { contentOf, disksOf, FIXTURES, fixture, fixtureDisks, sameBytes, sameDisks } from './support.ts';

const PLAIN = ['plain.xva', 'sha1.xva', 'ustar.xva', 'pax.xva', 'gnu.xva', 'padded.xva', 'timeout.xva'];
const ALL = [...PLAIN, 'plain.xva.gz', 'plain.xva.zst'];
const BAD = readdirSync(`${FIXTURES}bad`);

describe.each(ALL)('%s', (name) => {
  const expected = fixtureDisks();
  const compression = name.endsWith('gz') ? 'gzip' : name.endsWith('zst') ? 'zstd' : 'none';

  test.each(CHUNKINGS)('is read as a stream, %s', async (chunking) => {
    await using stream = await readXvaStream(chunksOf(await fixture(name), chunking));
    expect(stream.compression).toBe(compression);
    expect(stream.disks.map(({ id, size, device, vdiUuid }) => [id, size, device, vdiUuid])).toEqual([
      ['Ref:103', 20_480, '1', '5f6a1c1e-0000-4000-8000-000000000042'],
      ['Ref:98', 33_280, '0', '5f6a1c1e-0000-4000-8000-000000000041'],
    ]);
    sameDisks(await disksOf(stream), expected);
  });

  test.each(CHUNKINGS)('passes a check unchanged, %s', async (chunking) => {
    const bytes = await fixture(name);
    const checking = checkingXva(chunksOf(bytes, chunking));
    sameBytes(await collect(checking.bytes), bytes);
    const report = await checking.report;
    expect(report).toMatchObject({ ok: true, findings: [], compression, length: bytes.byteLength });
    expect(report.checksums).toEqual([name === 'sha1.xva' ? 'sha1' : 'xxhash']);
    expect(report.disks.map(({ dataBytes, complete }) => [dataBytes, complete])).toEqual([
      [3 * 4096, true],
      [3 * 4096 + 512, true],
    ]);
    expect(xvaVm(checking.metadata!).name).toBe('web & mail');
    expect(await checkXva(memorySource(bytes))).toEqual(report);
    const plain = compression === 'none' ? bytes : await fixture('plain.xva');
    expect(report.plainLength).toBe(plain.byteLength);
  });
});

test.each(PLAIN)('%s opens at random access', async (name) => {
  const expected = fixtureDisks();
  for (const kind of SOURCE_KINDS) {
    await using image = await openXva(await sourceOf(kind, await fixture(name)));
    for (const disk of image.disks) {
      const bytes = expected.get(disk.id)!;
      sameBytes(await contentOf(disk), bytes);
      for await (const { offset, length, kind: what } of disk.extents()) {
        const piece = bytes.subarray(offset, offset + length);
        expect(piece.every((byte) => byte === 0)).toBe(what === 'zero');
      }
      const part = new Uint8Array(5000);
      await disk.readInto(part, 3000);
      sameBytes(part, bytes.slice(3000, 8000));
    }
  }
});

test.each(['plain.xva', 'plain.xva.gz', 'plain.xva.zst'])(
  '%s is read out of memory that is used again, and checked as it passes',
  async (name) => {
    const bytes = await fixture(name);
    for (const size of [1, 3, 100, 5000]) {
      await using stream = await readXvaStream(chunksInOneMemory(bytes, size));
      sameDisks(await disksOf(stream), fixtureDisks());
      const checking = checkingXva((await peekXvaCompression(chunksInOneMemory(bytes, size))).bytes);
      for await (const _ of checking.bytes);
      expect((await checking.report).ok).toBe(true);
    }
  },
);

test('what is left out is zero, without being read', async () => {
  await using image = await openXva(`${FIXTURES}plain.xva`);
  expect(await toArray(image.disks[0]!.extents())).toEqual([
    { offset: 0, length: 4096, kind: 'data' },
    { offset: 4096, length: 4096, kind: 'zero' },
    { offset: 8192, length: 4096, kind: 'data' },
    { offset: 12_288, length: 4096, kind: 'zero' },
    { offset: 16_384, length: 4096, kind: 'data' },
  ]);
});

test('a VM can be known from its archive alone', async () => {
  await using stream = await readXvaStream(chunksOf(await fixture('plain.xva')));
  expect(xvaVm(stream.metadata)).toMatchObject({
    uuid: '5f6a1c1e-0000-4000-8000-000000000001',
    name: 'web & mail',
    isTemplate: true,
    cpus: { max: 4, atStartup: 2 },
    memory: { staticMax: 4 * 2 ** 30, dynamicMin: 2 * 2 ** 30 },
    firmware: 'uefi',
    secureBoot: true,
    bootOrder: 'cdn',
    nics: [{ device: '0', mac: '5e:00:00:00:00:01', network: { name: 'Pool-wide network', bridge: 'xenbr0' } }],
    drives: [
      { device: '0', type: 'Disk', bootable: true, vdi: { size: 33_280, sr: { name: 'Local storage' } } },
      { device: '1', type: 'Disk', vdi: { name: 'data' } },
      { device: '3', type: 'CD', vdi: { sr: { type: 'iso' } } },
    ],
  });
});

test.each(['plain.xva.gz', 'plain.xva.zst'])('%s does not open, and says what to do', async (name) => {
  await expect(openXva(FIXTURES + name)).rejects.toMatchObject({
    code: 'XVA_COMPRESSED',
    message: expect.stringMatching(/zstd -d|gunzip/) as string,
  });
});

describe.each(BAD)('bad/%s', (name) => {
  const code = name.split('.')[0]!;
  // A stream ends where its compression does; a check sees the rest, or the decompressor trips over it: as it is cut.
  const behindCompression = name === 'XVA_TRAILING_DATA.xva.zst';
  const codes = behindCompression ? [code, 'XVA_COMPRESSION'] : [code];

  test('is told by a check, with its place, and the bytes flow on', async () => {
    const bytes = await fixture(`bad/${name}`);
    for (const chunking of CHUNKINGS) {
      const checking = checkingXva(chunksOf(bytes, chunking));
      sameBytes(await collect(checking.bytes), bytes);
      const report = await checking.report;
      expect(report.ok).toBe(false);
      expect(report.findings.some((finding) => codes.includes(finding.code))).toBe(true);
      expect(report.firstBad).toEqual({
        entry: report.findings[0]!.entry,
        offset: report.findings[0]!.offset,
      });
      if (!behindCompression) expect(await checkXva(memorySource(bytes))).toEqual(report);
    }
  });

  test('is refused as a stream', async () => {
    if (behindCompression) return; // documented: what follows compressed data is not looked at
    for (const chunking of CHUNKINGS) {
      const reading = async () => {
        await using stream = await readXvaStream(chunksOf(await fixture(`bad/${name}`), chunking));
        await disksOf(stream);
      };
      const error = await reading().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(FormatError);
      expect((error as FormatError).code).toBe(code);
    }
  });
});

test('a wrong checksum names the chunk', async () => {
  const { findings } = await checkXva(`${FIXTURES}bad/XVA_CHECKSUM.xva`);
  expect(findings).toMatchObject([{ code: 'XVA_CHECKSUM', entry: 'Ref:98/00000005', actual: 'EF46DB3751D8E999' }]);
});
