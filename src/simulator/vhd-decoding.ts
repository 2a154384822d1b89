import { type ByteReader, runsOfSetBits } from '../bytes/index.ts';
import { FormatError, type FormatErrorCode } from '../core/index.ts';
import {
  ABSENT_BLOCK,
  CHECKSUM_AT,
  NO_OFFSET,
  SECTOR_SIZE,
  VHD_VERSION,
  type VhdHeader,
  vhdChecksum,
  vhdFooter,
  vhdHeader,
  vhdLocator,
} from './vhd-layout.ts';

const PIECE = 1024 * 1024; // the most that one write takes, in bytes
const KNOWN_PLATFORMS = new Set(['\0\0\0\0', 'Wi2r', 'Wi2k', 'W2ru', 'W2ku', 'Mac ', 'MacX']);

/** What an import writes to. */
export interface ImportTarget {
  /** In bytes. */
  readonly size: number;
  write(data: Uint8Array, offset: number): Promise<void>;
}

/**
 * `PUT /import_raw_vdi?format=vhd`: writes a VHD into `target` in one forward pass, by the host's rules. Only sectors
 * whose bitmap bit is set are written; absent blocks and clear bits leave the target as it is, whatever the disk's
 * type; uuids, parents, sizes and the agreement of the two footers are not looked at. The trailing footer is expected
 * 512 bytes before `contentLength`.
 *
 * Stricter than the host in one point: a trailing footer of which only the reserved end is missing is refused, where a
 * host may not notice.
 *
 * @throws FormatError `VHD_*` or `STREAM_ENDED`; what was written until then stays written.
 * @see xapi-project/xen-api `ocaml/vhd-tool/src/impl.ml` `serve_vhd_to_raw`, `vhd_format/f.ml` `From_input`
 */
export async function decodeVhd(input: ByteReader, contentLength: number, target: ImportTarget): Promise<void> {
  const headerAt = await readFooter(input);
  await skipTo(input, headerAt, 'VHD header');
  const header = await readHeader(input);
  await skipTo(input, Number(header.tableOffset), 'VHD block table');
  const blocks = await readTable(input, header.tableEntries);
  for (const [sector, index] of blocks) {
    await skipTo(input, sector * SECTOR_SIZE, `VHD block ${index}`);
    await copyBlock(input, header.blockSize, index, target);
  }
  await skipTo(input, Math.floor((contentLength - 1) / SECTOR_SIZE) * SECTOR_SIZE, 'trailing VHD footer');
  await readFooter(input);
}

/** Checks a footer and returns where it says the header lies. */
async function readFooter(input: ByteReader): Promise<number> {
  const base = input.offset;
  const bytes = await input.read(vhdFooter.size, vhdFooter.name);
  const footer = vhdFooter.decode(bytes, base);
  expect('VHD_COOKIE', 'footer cookie', base, 'conectix', footer.cookie);
  expect('VHD_VERSION', 'footer version', base + 12, VHD_VERSION, footer.version);
  expect('VHD_CHECKSUM', 'footer checksum', base + 64, vhdChecksum(bytes, CHECKSUM_AT.footer), footer.checksum);
  if (![2, 3, 4].includes(footer.diskType)) fail('VHD_TYPE', 'disk type', base + 60, '2, 3 or 4', footer.diskType);
  return Number(footer.dataOffset);
}

async function readHeader(input: ByteReader): Promise<VhdHeader> {
  const base = input.offset;
  const bytes = await input.read(vhdHeader.size, vhdHeader.name);
  const header = vhdHeader.decode(bytes, base);
  expect('VHD_COOKIE', 'header cookie', base, 'cxsparse', header.cookie);
  expect('VHD_OFFSET', 'header data offset', base + 8, NO_OFFSET, header.dataOffset);
  expect('VHD_VERSION', 'header version', base + 24, VHD_VERSION, header.version);
  expect('VHD_CHECKSUM', 'header checksum', base + 36, vhdChecksum(bytes, CHECKSUM_AT.header), header.checksum);
  if (Math.log2(header.blockSize) % 1 !== 0 || header.blockSize < SECTOR_SIZE) {
    fail('VHD_BLOCK_SIZE', 'block size', base + 32, 'a power of two', header.blockSize);
  }
  for (let at = 0; at < header.locators.byteLength; at += vhdLocator.size) {
    const { platform } = vhdLocator.decode(header.locators.subarray(at, at + vhdLocator.size), base + 576 + at);
    if (!KNOWN_PLATFORMS.has(platform)) fail('VHD_LOCATOR', 'locator', base + 576 + at, 'a known platform', platform);
  }
  const name = Buffer.from(header.parentName).swap16().toString('utf16le');
  if (!name.isWellFormed()) fail('VHD_PARENT_NAME', 'parent name', base + 64, 'UTF-16', 'a lone surrogate');
  return header;
}

/**
 * The blocks as sector -> index, in file order. Two entries for one sector: the later index wins, as on a host. Only
 * present entries are held, so that a table's size on paper costs nothing.
 */
async function readTable(input: ByteReader, entries: number): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  for (let index = 0; index < entries; ) {
    const count = Math.min(entries - index, PIECE / 4);
    const bytes = await input.read(count * 4, 'VHD block table');
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < count; at++) {
      const sector = view.getUint32(at * 4);
      if (sector !== ABSENT_BLOCK) found.set(sector, index + at);
    }
    index += count;
  }
  return new Map([...found].sort(([a], [b]) => a - b));
}

async function copyBlock(input: ByteReader, blockSize: number, index: number, target: ImportTarget): Promise<void> {
  const sectors = blockSize / SECTOR_SIZE;
  // Not padded to a sector, as a host does not: blocks below 2 MiB are read wrongly there, too.
  const bitmap = await input.read(Math.floor(sectors / 8), `bitmap of VHD block ${index}`);
  const dataAt = input.offset;
  for (const { start, count } of runsOfSetBits(bitmap, sectors)) {
    await skipTo(input, dataAt + start * SECTOR_SIZE, `VHD block ${index}`);
    for (let done = 0; done < count * SECTOR_SIZE; ) {
      const length = Math.min(PIECE, count * SECTOR_SIZE - done);
      const offset = index * blockSize + start * SECTOR_SIZE + done;
      if (offset + length > target.size) {
        fail('VHD_BEYOND_END', `VHD block ${index}`, input.offset, `at most ${target.size} bytes`, offset + length);
      }
      await target.write(await input.read(length, `VHD block ${index}`), offset);
      done += length;
    }
  }
  await skipTo(input, dataAt + blockSize, `VHD block ${index}`);
}

async function skipTo(input: ByteReader, offset: number, what: string): Promise<void> {
  if (offset < input.offset) fail('VHD_ORDER', what, input.offset, `at ${offset}`, 'a stream that is past it');
  await input.skip(offset - input.offset);
}

function expect(code: FormatErrorCode, what: string, offset: number, expected: unknown, actual: unknown): void {
  if (expected !== actual) fail(code, what, offset, expected, actual);
}

function fail(code: FormatErrorCode, what: string, offset: number, expected: unknown, actual: unknown): never {
  throw new FormatError(code, { what, offset, expected, actual });
}
