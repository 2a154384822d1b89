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
  const indexes = new Uint32Array(countAllocated(table));
  let count = 0;
  for (let i = 0; i < table.length; i++) if (table[i] !== ABSENT) indexes[count++] = i;
  return indexes;
}

/** How many blocks are there. */
export function countAllocated(table: BlockTable): number {
  let count = 0;
  for (let i = 0; i < table.length; i++) if (table[i] !== ABSENT) count++;
  return count;
}

/** The sector of the block that lies last in the file; `undefined` where none is there. */
export function lastBlockSector(table: BlockTable): number | undefined {
  let last = -1;
  for (let i = 0; i < table.length; i++) {
    const sector = table[i]!;
    if (sector !== ABSENT && sector > last) last = sector;
  }
  return last < 0 ? undefined : last;
}

/** Indexes of the blocks that are there, in the order in which the file holds them. */
export function blocksInFileOrder(table: BlockTable): Uint32Array {
  const indexes = allocatedBlocks(table);
  for (let i = 1; i < indexes.length; i++) {
    if (table[indexes[i]!]! <= table[indexes[i - 1]!]!) return indexes.sort((a, b) => table[a]! - table[b]!);
  }
  return indexes; // as nearly every writer leaves them
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
  const { tableOffset, stride, reserved, dataEnd } = limits;
  let beforeIndex = -1;
  let beforeEnd = 0;
  for (const index of blocksInFileOrder(table)) {
    if (findings.length >= MOST_FINDINGS) break;
    const start = table[index]! * SECTOR_SIZE;
    const end = start + stride;
    const tell = (code: `VHD_${string}`, limit: string, actual: string) =>
      findings.push(error(code, `block table: entry ${index}`, tableOffset + index * 4, limit, actual));
    for (const region of reserved) {
      if (start >= region.end || end <= region.start) continue;
      tell('VHD_BLOCK_OVERLAP', `not over the ${region.name} (${region.start} to ${region.end})`, `byte ${start}`);
      break;
    }
    if (end > dataEnd) {
      tell('VHD_BLOCK_OUTSIDE', `a block that ends by byte ${dataEnd}`, `one of ${stride} bytes at ${start}`);
    }
    if (start < beforeEnd) {
      tell('VHD_BLOCK_OVERLAP', `not before byte ${beforeEnd}, where block ${beforeIndex} ends`, `byte ${start}`);
    }
    beforeIndex = index;
    beforeEnd = end;
  }
  return findings;
}
