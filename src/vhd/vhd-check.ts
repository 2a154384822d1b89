import { type ByteSource, isZero, nextBit, openFileSource, readBytes, runsOfSetBits } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { blocksInFileOrder, countAllocated } from './block-table.ts';
import { SECTOR_SIZE, VHD_BLOCK_SIZE, type VhdKind } from './constants.ts';
import { type VhdFinding, warning } from './findings.ts';
import { type InspectOptions, inspectVhd, type VhdBlocks, type VhdStructure } from './inspect.ts';
import type { VhdParent } from './vhd-link.ts';

/**
 * How deep a check goes. `structure`: footers, header, block table, locators. `bitmaps`: also each block's sector
 * bitmap (512 bytes for 2 MiB). `content`: also reads all data, and looks for what only some readers would see.
 */
export type VhdCheckLevel = 'structure' | 'bitmaps' | 'content';

/** How {@link checkVhd} checks. */
export interface CheckVhdOptions extends InspectOptions {
  /** @defaultValue `'structure'` */
  readonly level?: VhdCheckLevel | undefined;
}

/** What {@link checkVhd} found. Plain and serialisable. */
export interface VhdCheckReport {
  /** Is there no error? Warnings do not count. */
  readonly ok: boolean;
  /** How deep was looked. */
  readonly level: VhdCheckLevel;
  /** In the order in which they were met. */
  readonly findings: readonly VhdFinding[];
  /** What the file is; missing where its structure is broken. */
  readonly summary?: VhdSummary | undefined;
}

/** What a VHD is, for people and lists. */
export interface VhdSummary {
  /** Whether it stands alone. */
  readonly kind: VhdKind;
  /** Its own, by which others name it as their parent. */
  readonly uuid: string;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Of the file, in bytes. */
  readonly fileSize: number;
  /** The program that made it, as it calls itself, for example `win`, `tap` or `qemu`. */
  readonly creator: string;
  /** Of a differencing VHD. */
  readonly parent?: VhdParent | undefined;
  /** In bytes; none for a fixed VHD. */
  readonly blockSize?: number | undefined;
  /** How many blocks the disk has. */
  readonly blockCount?: number | undefined;
  /** How many of them are in the file. */
  readonly allocatedBlockCount?: number | undefined;
  /** Bytes whose sectors the bitmaps mark; from level `bitmaps` on. */
  readonly markedBytes?: number | undefined;
}

/**
 * Checks a VHD and tells all that is wrong or unusual, each with its place. Faults of the file do not make it reject,
 * only failures to read it do. The parent is not looked at. A source stays open.
 */
export async function checkVhd(source: string | ByteSource, options: CheckVhdOptions = {}): Promise<VhdCheckReport> {
  if (typeof source !== 'string') return checkSource(source, options);
  const file = await openFileSource(source);
  try {
    return await checkSource(file, options);
  } finally {
    await file.close();
  }
}

async function checkSource(source: ByteSource, options: CheckVhdOptions): Promise<VhdCheckReport> {
  const { level = 'structure' } = options;
  const inspection = await inspectVhd(source, options);
  const findings = [...inspection.findings];
  const { structure } = inspection;
  if (structure === undefined) return { ok: false, level, findings };
  const { footer, kind, size, blocks } = structure;
  const markedBytes =
    blocks === undefined || level === 'structure'
      ? undefined
      : await checkBlocks(source, structure, blocks, level, findings, options);
  if (blocks === undefined && level === 'content') await readThrough(source, { from: 0, to: size }, options);
  const summary: VhdSummary = {
    kind,
    uuid: footer.uuid,
    size,
    fileSize: source.size,
    creator: footer.creatorApplication.replace(/[\0 ]+$/, ''),
    parent: blocks?.parent,
    blockSize: blocks?.header.blockSize,
    blockCount: blocks?.blockCount,
    allocatedBlockCount: blocks && countAllocated(blocks.table),
    markedBytes,
  };
  return { ok: findings.every(({ severity }) => severity !== 'error'), level, findings, summary };
}

const MOST_FINDINGS = 20;

/** Reads each block in file order; resolves with the bytes that the bitmaps mark. */
async function checkBlocks(
  source: ByteSource,
  { kind, size }: VhdStructure,
  { table, header, bitmapSize, stride }: VhdBlocks,
  level: VhdCheckLevel,
  findings: VhdFinding[],
  options: CallOptions,
): Promise<number> {
  const { blockSize } = header;
  const found: VhdFinding[] = [];
  let marked = 0;
  for (const index of blocksInFileOrder(table)) {
    options.signal?.throwIfAborted();
    const at = table[index]! * SECTOR_SIZE;
    const bitmap = await readBytes(source, at, bitmapSize, options);
    const inside = Math.min(blockSize, size - index * blockSize) / SECTOR_SIZE;
    const runs = [...runsOfSetBits(bitmap, inside)];
    const data = { from: at + bitmapSize, to: at + stride };
    const stale = level === 'content' && (await hidesData(source, data, runs, inside, options));
    marked += runs.reduce((sum, { count }) => sum + count * SECTOR_SIZE, 0);
    if (found.length >= MOST_FINDINGS) continue;
    const field = `sector bitmap of block ${index}`;
    if (nextBit(bitmap, inside, blockSize / SECTOR_SIZE, true) < blockSize / SECTOR_SIZE && kind === 'differencing') {
      found.push(warning('VHD_BITMAP', field, at, "clear bits beyond the disk's end", 'set ones'));
    }
    if (runs.length === 0) found.push(warning('VHD_BITMAP', field, at, 'at least one bit set', 'none'));
    if (stale && kind === 'dynamic') {
      const actual = 'other bytes, which qemu and Xen Orchestra would return';
      found.push(warning('VHD_STALE_DATA', field, at, 'zeros in sectors that are not marked', actual));
    }
  }
  findings.push(...found);
  return marked;
}

/** Reads a block's data through, in pieces; are there other bytes than zeros in sectors that the bitmap does not mark? */
async function hidesData(
  source: ByteSource,
  { from, to }: { readonly from: number; readonly to: number },
  runs: readonly { start: number; count: number }[],
  sectorCount: number,
  options: CallOptions,
): Promise<boolean> {
  const ends = [0, ...runs.map(({ start, count }) => (start + count) * SECTOR_SIZE)];
  const starts = [...runs.map(({ start }) => start * SECTOR_SIZE), sectorCount * SECTOR_SIZE];
  let found = false;
  await readThrough(source, { from, to }, options, (piece, offset) => {
    const end = offset + piece.byteLength;
    found ||= ends.some((gapStart, i) => {
      const gap = piece.subarray(Math.max(gapStart - offset, 0), Math.max(Math.min(starts[i]!, end) - offset, 0));
      return !isZero(gap);
    });
  });
  return found;
}

/** Reads a range in pieces of 2 MiB; each is shown with its offset within the range, and gone afterwards. */
async function readThrough(
  source: ByteSource,
  { from, to }: { readonly from: number; readonly to: number },
  options: CallOptions,
  show: (piece: Uint8Array, offset: number) => void = () => {},
): Promise<void> {
  const buffer = new Uint8Array(Math.min(VHD_BLOCK_SIZE, to - from));
  for (let at = from; at < to; at += buffer.byteLength) {
    const piece = buffer.subarray(0, Math.min(buffer.byteLength, to - at));
    await source.readInto(piece, at, options);
    show(piece, at - from);
  }
}
