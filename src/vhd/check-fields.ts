import {
  bitmapSizeOf,
  FOOTER_SIZE,
  FORMAT_VERSION,
  fromVhdTime,
  HEADER_COOKIE,
  HEADER_SIZE,
  kindOf,
  MAX_VHD_SIZE,
  NIL_UUID,
  NO_OFFSET,
  RESERVED_FEATURE,
  roundUpToSector,
  SECTOR_SIZE,
  VHD_BLOCK_SIZE,
} from './constants.ts';
import { checksumOf } from './fields.ts';
import { error, type VhdFinding, warning } from './findings.ts';
import type { VhdFooter } from './footer.ts';
import { geometryOf, geometrySize } from './geometry.ts';
import { HEADER_CHECKSUM_AT, NO_LOCATOR, type VhdHeader } from './header.ts';
import { KNOWN_LOCATORS, liesWithin } from './vhd-link.ts';

/** More table entries than a disk of 2040 GiB in blocks of 512 KiB needs are refused, in a table of any length. */
const MOST_BLOCKS = MAX_VHD_SIZE / (512 * 1024);
const SMALLEST_BLOCK = 4096;
const LARGEST_BLOCK = 64 * 1024 * 1024;
const CLOCK_TOLERANCE_MS = 30 * 60 * 1000;

/** Faults of a footer's fields. `base`: where it is; `now`: milliseconds since 1970, for times in the future. */
export function checkFooter(footer: VhdFooter, base: number, now: number): VhdFinding[] {
  const findings: VhdFinding[] = [];
  const kind = kindOf(footer.diskType);
  const { currentSize } = footer;
  if (footer.version !== FORMAT_VERSION) {
    findings.push(error('VHD_VERSION', 'footer: version', base + 12, '0x10000', hex(footer.version)));
  }
  if (kind === undefined) {
    const limit = '2 (fixed), 3 (dynamic) or 4 (differencing)';
    findings.push(error('VHD_DISK_TYPE', 'footer: disk type', base + 60, limit, footer.diskType));
  }
  if (kind === 'fixed' && footer.dataOffset !== NO_OFFSET) {
    const actual = hex(footer.dataOffset);
    findings.push(error('VHD_DATA_OFFSET', 'footer: data offset of a fixed disk', base + 16, hex(NO_OFFSET), actual));
  }
  if (currentSize < SECTOR_SIZE) {
    findings.push(error('VHD_SIZE', 'footer: current size', base + 48, 'at least one sector', currentSize));
  } else if (currentSize > MAX_VHD_SIZE) {
    findings.push(error('VHD_TOO_LARGE', 'footer: current size', base + 48, `at most ${MAX_VHD_SIZE}`, currentSize));
  } else if (currentSize % SECTOR_SIZE !== 0) {
    findings.push(warning('VHD_SIZE', 'footer: current size', base + 48, 'a multiple of 512', currentSize));
  }
  if ((footer.features & RESERVED_FEATURE) === 0) {
    findings.push(warning('VHD_FEATURES', 'footer: features', base + 8, 'bit 1 set', hex(footer.features)));
  }
  const largest = geometrySize(geometryOf(currentSize));
  if (geometrySize(footer) === 0 && largest > 0) {
    // (below 68 sectors the rule itself gives no cylinders)
    findings.push(warning('VHD_GEOMETRY', 'footer: geometry', base + 56, 'not zero', chs(footer)));
  } else if (geometrySize(footer) > largest) {
    findings.push(warning('VHD_GEOMETRY', 'footer: geometry', base + 56, `at most ${largest} bytes`, chs(footer)));
  }
  if (fromVhdTime(footer.timestamp).getTime() > now + CLOCK_TOLERANCE_MS) {
    const actual = fromVhdTime(footer.timestamp).toISOString();
    findings.push(warning('VHD_TIMESTAMP', 'footer: timestamp', base + 24, 'a time in the past', actual));
  }
  if (footer.uuid === NIL_UUID) {
    findings.push(warning('VHD_UUID', 'footer: UUID', base + 68, 'not all zeros', footer.uuid));
  }
  if (footer.reserved.some((byte) => byte !== 0)) {
    findings.push(warning('VHD_RESERVED', 'footer: reserved bytes', base + 86, 'zeros', 'others'));
  }
  return findings;
}

/** Is the header's place wrong? Compared as 64 bits: the field may hold anything. */
export function checkHeaderOffset({ dataOffset }: VhdFooter, dataEnd: number): VhdFinding | undefined {
  const inside = dataOffset >= BigInt(FOOTER_SIZE) && dataOffset <= BigInt(dataEnd - HEADER_SIZE);
  if (inside && dataOffset % BigInt(SECTOR_SIZE) === 0n) return undefined;
  const limit = `a multiple of 512 from ${FOOTER_SIZE} to ${dataEnd - HEADER_SIZE}`;
  return error('VHD_DATA_OFFSET', 'footer: data offset', 16, limit, hex(dataOffset));
}

/** Faults of the bytes of a header that keep it from being decoded or believed. */
export function checkHeaderBytes(bytes: Uint8Array, base: number): VhdFinding[] {
  const cookie = Buffer.from(bytes.subarray(0, 8)).toString('latin1');
  if (cookie !== HEADER_COOKIE) {
    return [error('VHD_HEADER_COOKIE', 'header: cookie', base, `"${HEADER_COOKIE}"`, JSON.stringify(cookie))];
  }
  const stored = new DataView(bytes.buffer, bytes.byteOffset).getUint32(HEADER_CHECKSUM_AT);
  const computed = checksumOf(bytes, HEADER_CHECKSUM_AT);
  if (stored === computed) return [];
  return [error('VHD_HEADER_CHECKSUM', 'header: checksum', base + HEADER_CHECKSUM_AT, hex(computed), hex(stored))];
}

/** Where the structures of a VHD with blocks lie; all in bytes. */
export interface Layout {
  /** Blocks that the disk's size needs. */
  readonly blockCount: number;
  /** One block's bitmap. */
  readonly bitmapSize: number;
  /** A bitmap and its block. */
  readonly stride: number;
  /** Where the table ends, rounded up to whole sectors. */
  readonly tableEnd: number;
}

/** Follows from size and header, which {@link checkHeader} has passed. */
export function layoutOf(size: number, header: VhdHeader): Layout {
  const bitmapSize = bitmapSizeOf(header.blockSize);
  return {
    blockCount: Math.ceil(size / header.blockSize),
    bitmapSize,
    stride: bitmapSize + header.blockSize,
    tableEnd: header.tableOffset + roundUpToSector(header.maxTableEntries * 4),
  };
}

/** Faults of a header's fields. `base`: where it is; `dataEnd`: where the file's footer, or the file, begins or ends. */
export function checkHeader(header: VhdHeader, footer: VhdFooter, base: number, dataEnd: number): VhdFinding[] {
  const findings: VhdFinding[] = [];
  const { blockSize, maxTableEntries, tableOffset } = header;
  if (header.version !== FORMAT_VERSION) {
    findings.push(error('VHD_VERSION', 'header: version', base + 24, '0x10000', hex(header.version)));
  }
  if (header.dataOffset !== NO_OFFSET) {
    const actual = hex(header.dataOffset);
    findings.push(warning('VHD_DATA_OFFSET', 'header: data offset', base + 8, hex(NO_OFFSET), actual));
  }
  if (blockSize < SMALLEST_BLOCK || blockSize > LARGEST_BLOCK || !Number.isInteger(Math.log2(blockSize))) {
    const limit = `a power of two from ${SMALLEST_BLOCK} to ${LARGEST_BLOCK}`;
    findings.push(error('VHD_BLOCK_SIZE', 'header: block size', base + 32, limit, blockSize));
    return findings; // all that follows hangs on it
  }
  if (blockSize !== VHD_BLOCK_SIZE) {
    findings.push(
      warning('VHD_BLOCK_SIZE', 'header: block size', base + 32, `${VHD_BLOCK_SIZE}, as hosts want it`, blockSize),
    );
  }
  const { blockCount, tableEnd } = layoutOf(footer.currentSize, header);
  if (maxTableEntries < blockCount || blockCount > MOST_BLOCKS) {
    const limit = `at least the ${blockCount} of the disk's size, which may be ${MOST_BLOCKS} at most`;
    findings.push(error('VHD_TABLE_ENTRIES', 'header: table entries', base + 28, limit, maxTableEntries));
  }
  if (tableOffset % SECTOR_SIZE !== 0 || tableOffset < FOOTER_SIZE) {
    const limit = 'a multiple of 512 behind the first footer';
    findings.push(error('VHD_TABLE_OFFSET', 'header: block table offset', base + 16, limit, tableOffset));
  } else if (tableOffset < base + HEADER_SIZE && tableEnd > base) {
    const limit = `not over the header (${base} to ${base + HEADER_SIZE})`;
    findings.push(error('VHD_TABLE_OFFSET', 'header: block table offset', base + 16, limit, tableOffset));
  }
  if (tableEnd > dataEnd) {
    const actual = `one of ${maxTableEntries} entries at ${tableOffset}`;
    findings.push(error('VHD_TABLE_OUTSIDE', 'header: block table', base + 16, `one that ends by ${dataEnd}`, actual));
  }
  if (header.reserved2.some((byte) => byte !== 0)) {
    findings.push(warning('VHD_RESERVED', 'header: reserved bytes', base + 768, 'zeros', 'others'));
  }
  return findings;
}

/** Faults of the locators; none is worse than a warning, because the UUID alone is the link. */
export function checkLocators(header: VhdHeader, base: number, fileSize: number): VhdFinding[] {
  const findings: VhdFinding[] = [];
  header.locators.forEach((locator, i) => {
    const at = base + 576 + i * 24;
    const field = `header: parent locator ${i}`;
    if (!KNOWN_LOCATORS.has(locator.code)) {
      findings.push(warning('VHD_LOCATOR', field, at, 'a known code', JSON.stringify(locator.code)));
    } else if (locator.code !== NO_LOCATOR && !liesWithin(locator, fileSize)) {
      const actual = `${locator.dataLength} bytes at ${locator.dataOffset}`;
      findings.push(warning('VHD_LOCATOR', field, at, 'a short text within the file', actual));
    }
  });
  return findings;
}

function chs(footer: VhdFooter): string {
  return `${footer.cylinders}/${footer.heads}/${footer.sectorsPerTrack}`;
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
