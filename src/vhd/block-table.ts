import { ABSENT, SECTOR_SIZE } from './constants.ts';
import { error, type VhdFinding } from './findings.ts';

/** The block table: for each block of the disk the sector of the file where its bitmap starts, or {@link ABSENT}. */
export type BlockTable = Uint32Array;

/** The first `count` entries. */
export function decodeBlockTable(bytes: Uint8Array, count: number): BlockTable {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const table = new Uint32Array(count);
  for (let i = 0; i < count; i++) table[i] = view.getUint32(i * 4);
  return table;
}

/** The table's bytes, padded to `size` with what stands for "absent". */
export function encodeBlockTable(table: BlockTable, size: number): Uint8Array {
  const bytes = new Uint8Array(size).fill(0xff);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < table.length; i++) view.setUint32(i * 4, table[i]!);
  return bytes;
}

/** Indexes of the blocks that are there, ascending. */
export function allocatedBlocks(table: BlockTable): Uint32Array {
  return table.map((_, index) => index).filter((index) => table[index] !== ABSENT);
}

/** Indexes of the blocks that are there, in the order in which the file holds them. */
export function blocksInFileOrder(table: BlockTable): Uint32Array {
  const indexes = allocatedBlocks(table);
  if (isAscending(indexes.map((index) => table[index]!))) return indexes;
  return indexes.sort((a, b) => table[a]! - table[b]!);
}

/** Is each value larger than the one before? */
export function isAscending(values: Uint32Array): boolean {
  for (let i = 1; i < values.length; i++) if (values[i]! <= values[i - 1]!) return false;
  return true;
}

/** A part of the file where no block may lie. */
export interface Reserved {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** What {@link checkBlockTable} holds the entries against; all in bytes. */
export interface TableLimits {
  /** Where the table itself is in the file. */
  readonly tableOffset: number;
  /** A block with its bitmap. */
  readonly stride: number;
  readonly reserved: readonly Reserved[];
  /** Blocks must end here at the latest. */
  readonly dataEnd: number;
}

const MOST_FINDINGS = 20;

/** The faults of a table's entries: outside the file, over other structures, over each other. At most 20 are told. */
export function checkBlockTable(table: BlockTable, limits: TableLimits): VhdFinding[] {
  const findings: VhdFinding[] = [];
  let before: { index: number; end: number } | undefined;
  for (const index of blocksInFileOrder(table)) {
    if (findings.length >= MOST_FINDINGS) break;
    const start = table[index]! * SECTOR_SIZE;
    const end = start + limits.stride;
    const at = limits.tableOffset + index * 4;
    const field = `block table: entry ${index}`;
    const hit = limits.reserved.find((region) => start < region.end && end > region.start);
    if (hit !== undefined) {
      const limit = `not over the ${hit.name} (${hit.start} to ${hit.end})`;
      findings.push(error('VHD_BLOCK_OVERLAP', field, at, limit, `byte ${start}`));
    }
    if (end > limits.dataEnd) {
      const limit = `a block that ends by byte ${limits.dataEnd}`;
      findings.push(error('VHD_BLOCK_OUTSIDE', field, at, limit, `one of ${limits.stride} bytes at ${start}`));
    }
    if (before !== undefined && start < before.end) {
      const limit = `not before byte ${before.end}, where block ${before.index} ends`;
      findings.push(error('VHD_BLOCK_OVERLAP', field, at, limit, `byte ${start}`));
    }
    before = { index, end };
  }
  return findings;
}
