import { randomUUID } from 'node:crypto';
import { FormatError } from '../core/index.ts';
import { allocatedBlocks, type BlockTable, encodeBlockTable } from './block-table.ts';
import {
  ABSENT,
  FOOTER_SIZE,
  MAX_VHD_SIZE,
  roundUpToSector,
  SECTOR_SIZE,
  STRIDE,
  toVhdTime,
  VHD_BLOCK_SIZE,
  type VhdKind,
} from './constants.ts';
import { assertUuid } from './fields.ts';
import { encodeFooter, makeFooter, type VhdFooter } from './footer.ts';
import { encodeHeader, makeHeader, type VhdHeader } from './header.ts';
import { locatorsSize, type ParentLink, planLocators } from './vhd-link.ts';

/** What a VHD says about itself. */
export interface VhdIdentity {
  /**
   * @defaultValue `'differencing'` where `parent` is given, else `'dynamic'`
   */
  readonly type?: 'dynamic' | 'differencing' | undefined;
  /**
   * What children will name.
   * @defaultValue a random UUID
   */
  readonly uuid?: string | undefined;
  /** Needed for a differencing VHD, refused for a dynamic one. */
  readonly parent?: ParentLink | undefined;
  /**
   * When the VHD was made.
   * @defaultValue now
   */
  readonly timestamp?: Date | undefined;
}

/** {@link VhdIdentity} with nothing left open. */
export interface ResolvedIdentity {
  readonly size: number;
  readonly kind: Exclude<VhdKind, 'fixed'>;
  readonly uuid: string;
  readonly timestamp: number;
  readonly parent?: ParentLink | undefined;
}

/**
 * Where the block table starts: as in what hosts export, so that a repacked export keeps its length.
 * (blktap and qemu put it at 1536; every reader goes by the header's offset.)
 */
const TABLE_OFFSET = 2048;

/** Every byte of a VHD but its blocks, and where these go. */
export interface VhdPlan {
  readonly footer: VhdFooter;
  readonly header: VhdHeader;
  /** The first and last 512 bytes. */
  readonly footerBytes: Uint8Array;
  /** All that lies before the first block, with a footer at its start. */
  readonly head: Uint8Array;
  /** The blocks in the file, ascending, one every {@link STRIDE} bytes behind `head`. */
  readonly blockIndexes: Uint32Array;
  /** Of the whole file, in bytes. */
  readonly length: number;
}

/**
 * Fills in what a caller left open.
 *
 * @throws FormatError `VHD_TOO_LARGE` above 2040 GiB; RangeError for a size that is no positive multiple of 512, a wrong
 * UUID or parent.
 */
export function resolveIdentity(size: number, identity: VhdIdentity): ResolvedIdentity {
  const { parent, timestamp = new Date(), uuid = randomUUID() } = identity;
  const kind = identity.type ?? (parent === undefined ? 'dynamic' : 'differencing');
  if (size > MAX_VHD_SIZE) {
    const expected = `at most ${MAX_VHD_SIZE} bytes (2040 GiB)`;
    throw new FormatError('VHD_TOO_LARGE', { what: 'VHD: size', offset: 48, expected, actual: `${size} bytes` });
  }
  if (!Number.isSafeInteger(size) || size < SECTOR_SIZE || size % SECTOR_SIZE !== 0) {
    throw new RangeError(`a VHD of ${size} bytes: the size must be a positive multiple of ${SECTOR_SIZE}`);
  }
  if ((kind === 'differencing') !== (parent !== undefined)) {
    throw new RangeError(`a ${kind} VHD ${parent === undefined ? 'needs' : 'has no'} parent`);
  }
  assertUuid(uuid);
  if (parent !== undefined) {
    assertUuid(parent.uuid);
    if (parent.uuid.toLowerCase() === uuid.toLowerCase()) throw new RangeError(`VHD ${uuid} cannot be its own parent`);
  }
  return { size, kind, uuid: uuid.toLowerCase(), timestamp: toVhdTime(timestamp), parent };
}

/** Blocks that a disk of `size` bytes has. */
export function blockCountOf(size: number): number {
  return Math.ceil(size / VHD_BLOCK_SIZE);
}

/** The length of what lies before the first block, in bytes; the same whatever blocks there are. */
export function headLengthOf({ size, parent }: ResolvedIdentity): number {
  return (
    TABLE_OFFSET + roundUpToSector(blockCountOf(size) * 4) + (parent === undefined ? 0 : locatorsSize(parent.name))
  );
}

/**
 * Lays out a VHD: footer, header, block table, parent locators, blocks in ascending order, footer. Pure.
 *
 * @throws RangeError where an index is outside the disk.
 */
export function planVhd(identity: ResolvedIdentity, blockIndexes: Iterable<number>): VhdPlan {
  const { size, parent } = identity;
  const headLength = headLengthOf(identity);
  const blockCount = blockCountOf(size);
  const table = tableOf(blockIndexes, blockCount, headLength);
  const indexes = allocatedBlocks(table);

  const tableBytes = encodeBlockTable(table, roundUpToSector(blockCount * 4));
  const locatorsAt = TABLE_OFFSET + tableBytes.byteLength;
  const planned = parent && planLocators(parent.name, locatorsAt);
  const footer = makeFooter(identity);
  const header = makeHeader({
    tableOffset: TABLE_OFFSET,
    maxTableEntries: blockCount,
    ...(parent && {
      parentUuid: parent.uuid,
      parentTimestamp: parent.timestamp === undefined ? 0 : toVhdTime(parent.timestamp),
      parentName: parent.name,
      locators: planned!.locators,
    }),
  });
  const footerBytes = encodeFooter(footer);
  const head = new Uint8Array(headLength);
  head.set(footerBytes);
  head.set(encodeHeader(header), FOOTER_SIZE);
  head.set(tableBytes, TABLE_OFFSET);
  if (planned !== undefined) head.set(planned.bytes, locatorsAt);
  const length = headLength + indexes.length * STRIDE + FOOTER_SIZE;
  return { footer, header, footerBytes, head, blockIndexes: indexes, length };
}

/** Positions in ascending order of the blocks, whatever the order in which they were named. */
function tableOf(blockIndexes: Iterable<number>, blockCount: number, headLength: number): BlockTable {
  const table = new Uint32Array(blockCount).fill(ABSENT);
  for (const index of blockIndexes) {
    if (!Number.isInteger(index) || index < 0 || index >= blockCount) {
      throw new RangeError(`block ${index} is outside a disk of ${blockCount} blocks`);
    }
    table[index] = 0;
  }
  let sector = headLength / SECTOR_SIZE;
  for (let index = 0; index < blockCount; index++) {
    if (table[index] === ABSENT) continue;
    table[index] = sector;
    sector += STRIDE / SECTOR_SIZE;
  }
  return table;
}
