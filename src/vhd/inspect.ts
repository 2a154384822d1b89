import { type ByteSource, readBytes } from '../bytes/index.ts';
import { type CallOptions, FormatError } from '../core/index.ts';
import { checkBatmap } from './batmap.ts';
import { type BlockTable, checkBlockTable, decodeBlockTable, lastBlockSector } from './block-table.ts';
import {
  checkFooter,
  checkHeader,
  checkHeaderBytes,
  checkHeaderOffset,
  checkLocators,
  type Layout,
  layoutOf,
} from './check-fields.ts';
import { FOOTER_SIZE, HEADER_SIZE, kindOf, SECTOR_SIZE, type VhdKind } from './constants.ts';
import { findFooter } from './find-footer.ts';
import { error, findingOf, type VhdFinding, warning } from './findings.ts';
import type { VhdFooter } from './footer.ts';
import { headerCodec, type VhdHeader } from './header.ts';
import { isRawParent, readParent, type VhdParent } from './vhd-link.ts';

/** All that is known of a VHD before its blocks are read. */
export interface VhdStructure {
  readonly footer: VhdFooter;
  readonly kind: VhdKind;
  /** The disk's size in bytes, whole sectors. */
  readonly size: number;
  /** Where the last footer starts, or the file ends that has none. */
  readonly dataEnd: number;
  /** `undefined` for a fixed disk. */
  readonly blocks?: VhdBlocks | undefined;
}

/** What a dynamic or differencing VHD has beside its footers. */
export interface VhdBlocks extends Layout {
  readonly header: VhdHeader;
  /** One entry for each block of the disk. */
  readonly table: BlockTable;
  readonly parent?: VhdParent | undefined;
}

export interface InspectOptions extends CallOptions {
  /**
   * Milliseconds since 1970, against which timestamps are held.
   * @defaultValue the machine's clock
   */
  readonly now?: number | undefined;
}

/** What {@link inspectVhd} found. `structure` is there unless a finding is an error. */
export interface Inspection {
  readonly findings: readonly VhdFinding[];
  readonly structure?: VhdStructure | undefined;
}

/**
 * Reads and checks all structures of a VHD (footers, header, block table, locators), not its bitmaps and data. Nothing
 * is allocated, sought or looped over by a number that was not checked first. Memory: the block table, at most 16 MiB.
 */
export async function inspectVhd(source: ByteSource, options: InspectOptions = {}): Promise<Inspection> {
  const found = await findFooter(source, options);
  const findings = [...found.findings];
  const { footer, at, dataEnd } = found;
  if (footer === undefined) return { findings };
  findings.push(...checkFooter(footer, at, options.now ?? Date.now()));
  const kind = kindOf(footer.diskType);
  if (kind === undefined || hasError(findings)) return { findings };

  const size = footer.currentSize - (footer.currentSize % SECTOR_SIZE);
  if (kind === 'fixed') {
    if (size > dataEnd) findings.push(error('VHD_SIZE', 'footer: current size', at + 48, `at most ${dataEnd}`, size));
    return hasError(findings) ? { findings } : { findings, structure: { footer, kind, size, dataEnd } };
  }
  const blocks = await inspectBlocks(source, { footer, kind, size, dataEnd }, findings, options);
  if (blocks === undefined || hasError(findings)) return { findings };
  return { findings, structure: { footer, kind, size, dataEnd, blocks } };
}

async function inspectBlocks(
  source: ByteSource,
  { footer, kind, size, dataEnd }: VhdStructure,
  findings: VhdFinding[],
  options: CallOptions,
): Promise<VhdBlocks | undefined> {
  const header = await readHeader(source, footer, dataEnd, findings, options);
  if (header === undefined) return undefined;
  const headerAt = Number(footer.dataOffset);
  findings.push(...checkHeader(header, footer, headerAt, dataEnd));
  if (hasError(findings)) return undefined;
  if (kind === 'differencing') findings.push(...checkLocators(header, headerAt, source.size));

  const layout = layoutOf(size, header);
  const { tableOffset } = header;
  const table = decodeBlockTable(
    await readBytes(source, tableOffset, layout.blockCount * 4, options),
    layout.blockCount,
  );
  const reserved = [
    { name: 'first footer', start: 0, end: FOOTER_SIZE },
    { name: 'header', start: headerAt, end: headerAt + HEADER_SIZE },
    { name: 'block table', start: tableOffset, end: layout.tableEnd },
  ];
  findings.push(...checkBlockTable(table, { tableOffset, stride: layout.stride, reserved, dataEnd }));
  if (hasError(findings)) return undefined;
  findings.push(...(await checkBatmap(source, footer, layout.tableEnd, dataEnd, options)));
  findings.push(...checkTail(table, layout, dataEnd));
  if (kind === 'dynamic') return { ...layout, header, table };
  const parent = await readParent(source, header, options);
  if (isRawParent(parent)) {
    const limit = 'the UUID of a VHD';
    findings.push(warning('VHD_PARENT_RAW', 'header: parent UUID', headerAt + 40, limit, 'zeros: a raw parent'));
  }
  return { ...layout, header, table, parent };
}

async function readHeader(
  source: ByteSource,
  footer: VhdFooter,
  dataEnd: number,
  findings: VhdFinding[],
  options: CallOptions,
): Promise<VhdHeader | undefined> {
  const fault = checkHeaderOffset(footer, dataEnd);
  if (fault !== undefined) {
    findings.push(fault);
    return undefined;
  }
  const at = Number(footer.dataOffset);
  const bytes = await readBytes(source, at, HEADER_SIZE, options);
  findings.push(...checkHeaderBytes(bytes, at));
  if (hasError(findings)) return undefined;
  try {
    return headerCodec.decode(bytes, at);
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    findings.push(findingOf(cause));
    return undefined;
  }
}

const USUAL_GAP = 8 * SECTOR_SIZE;

/** More than a page between the last structure and the footer: a disabled or unfinished writer, or a block device. */
function checkTail(table: BlockTable, { tableEnd, stride }: Layout, dataEnd: number): VhdFinding[] {
  const last = lastBlockSector(table);
  const end = last === undefined ? tableEnd : last * SECTOR_SIZE + stride;
  const gap = dataEnd - Math.max(end, tableEnd);
  if (last === undefined || gap <= USUAL_GAP) return [];
  return [warning('VHD_UNUSED_SPACE', 'file', end, 'the footer soon after the last block', `${gap} bytes between`)];
}

function hasError(findings: readonly VhdFinding[]): boolean {
  return findings.some(({ severity }) => severity === 'error');
}
