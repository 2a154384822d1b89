import { type ByteReader, byteReader, runsOfSetBits } from '../bytes/index.ts';
import { type CallOptions, FormatError } from '../core/index.ts';
import type { Block, BlockStream } from '../disk/index.ts';
import {
  allocatedBlocks,
  type BlockTable,
  blocksInFileOrder,
  checkBlockTable,
  decodeBlockTable,
  isAscending,
} from './block-table.ts';
import {
  checkFooter,
  checkHeader,
  checkHeaderBytes,
  checkHeaderOffset,
  type Layout,
  layoutOf,
} from './check-fields.ts';
import { DISK_TYPES, FOOTER_SIZE, HEADER_SIZE, SECTOR_SIZE, VHD_BLOCK_SIZE, type VhdKind } from './constants.ts';
import { findHttpHead, httpHeadOf } from './detect-format.ts';
import { nothingLike, readFooter } from './find-footer.ts';
import { error, errorOf, throwFirstError, type VhdFinding } from './findings.ts';
import type { VhdFooter } from './footer.ts';
import { headerCodec, type VhdHeader } from './header.ts';
import { locatorsEnd } from './vhd-link.ts';

export interface ReadVhdStreamOptions extends CallOptions {
  /**
   * What errors call the stream.
   * @defaultValue nothing
   */
  readonly file?: string | undefined;
  /**
   * The order in which blocks are wanted. Some tools put them into the file as they were first written to: such a
   * stream is refused with `VHD_STREAM_ORDER` where `'ascending'` is asked for; with `'file'` its blocks come as they
   * lie there, and are then no ascending {@link BlockStream}.
   * @defaultValue `'ascending'`
   */
  readonly order?: 'ascending' | 'file' | undefined;
  /**
   * Holds the stream to `length`: no gap before the last footer, as in what hosts export.
   * @defaultValue `false`
   */
  readonly exact?: boolean | undefined;
}

/** A VHD that is being read in one forward pass: what its head says, and its blocks to come. */
export interface VhdStreamReading extends AsyncDisposable {
  /** The first one. */
  readonly footer: VhdFooter;
  /** The dynamic header. */
  readonly header: VhdHeader;
  /** A fixed VHD cannot be read so. */
  readonly kind: Exclude<VhdKind, 'fixed'>;
  /** Its own, from the footer. */
  readonly uuid: string;
  /** Of the disk, in bytes; whole sectors. */
  readonly size: number;
  /** Indexes of the blocks in it, ascending. */
  readonly blockIndexes: Uint32Array;
  /** Of the whole stream in bytes, if no gap precedes the last footer. Hosts leave none. */
  readonly length: number;
  /** What is unusual about it, for people. */
  readonly warnings: readonly VhdFinding[];
  /**
   * The disk's data, to be iterated once: a block for each run of sectors that the bitmaps mark, none beyond the disk's
   * end. In a dynamic VHD the rest is zero, in a differencing one the parent's. The stream was whole only if this ends
   * without an error: the last footer is verified then.
   */
  readonly blocks: BlockStream;
  /** Gives up what was not read. */
  close(): Promise<void>;
}

const NONE_AT_START = 'none (a fixed VHD has its only one at the end: it is no stream, open it as a file)';

/** Offsets in a stream cannot be held against its end, which nobody knows. */
const NO_END = Number.MAX_SAFE_INTEGER;

/**
 * Reads the head of a dynamic or differencing VHD that comes as a stream, and then its blocks, holding no more than one
 * block and the block table. Takes what hosts export and what other tools write, gaps included, as long as no structure
 * lies behind one that it is needed for.
 *
 * A host that fails in the middle writes an HTTP answer into the stream, or just ends it: `VHD_HTTP_ANSWER`,
 * `STREAM_ENDED` (retryable).
 *
 * @throws FormatError; `blocks` then throws the same for what comes later.
 */
export async function readVhdStream(
  bytes: AsyncIterable<Uint8Array>,
  options: ReadVhdStreamOptions = {},
): Promise<VhdStreamReading> {
  const reader = byteReader(bytes, 'VHD stream', { signal: options.signal });
  const close = () => reader.close();
  try {
    const head = await readHead(reader, options);
    const { footer, header, table, layout, fileOrder } = head;
    const last = fileOrder.at(-1);
    const blocksEnd = last === undefined ? 0 : table[last]! * SECTOR_SIZE + layout.stride;
    const end = Math.max(layout.tableEnd, locatorsEnd(header), blocksEnd);
    return {
      footer,
      header,
      kind: footer.diskType === DISK_TYPES.dynamic ? 'dynamic' : 'differencing',
      uuid: footer.uuid,
      size: head.size,
      blockIndexes: allocatedBlocks(table),
      length: end + FOOTER_SIZE,
      warnings: head.warnings,
      blocks: readBlocks(reader, head, end + FOOTER_SIZE, options),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Head {
  readonly footer: VhdFooter;
  readonly footerBytes: Uint8Array;
  readonly header: VhdHeader;
  readonly size: number;
  readonly layout: Layout;
  readonly table: BlockTable;
  readonly fileOrder: Uint32Array;
  readonly warnings: readonly VhdFinding[];
}

async function readHead(reader: ByteReader, { file, order = 'ascending' }: ReadVhdStreamOptions): Promise<Head> {
  const warnings: VhdFinding[] = [];
  const check = (findings: readonly (VhdFinding | undefined)[]) => {
    const found = findings.filter((finding) => finding !== undefined);
    throwFirstError(found, file);
    warnings.push(...found);
  };

  const footerBytes = await readPiece(reader, FOOTER_SIZE, 'first footer', file);
  const { footer, hasCookie, problem } = readFooter(footerBytes, 0);
  if (footer === undefined) throw errorOf(hasCookie ? problem : nothingLike(footerBytes, NONE_AT_START), file);
  check(checkFooter(footer, 0, Date.now()));
  if (footer.diskType === DISK_TYPES.fixed) {
    check([error('VHD_DISK_TYPE', 'first footer: disk type', 60, 'dynamic or differencing at the start', 'fixed')]);
  }
  check([checkHeaderOffset(footer, NO_END)]);

  const headerAt = Number(footer.dataOffset);
  await skipTo(reader, headerAt, 'header', file);
  const headerBytes = await readPiece(reader, HEADER_SIZE, 'header', file);
  check(checkHeaderBytes(headerBytes, headerAt));
  const header = headerCodec.decode(headerBytes, headerAt);
  check(checkHeader(header, footer, headerAt, NO_END));

  const size = footer.currentSize - (footer.currentSize % SECTOR_SIZE);
  const layout = layoutOf(size, header);
  await skipTo(reader, header.tableOffset, 'block table', file);
  const tableBytes = await readPiece(reader, layout.blockCount * 4, 'block table', file);
  const table = decodeBlockTable(tableBytes, layout.blockCount);
  const reserved = [{ name: 'structures before it', start: 0, end: layout.tableEnd }];
  const limits = { tableOffset: header.tableOffset, stride: layout.stride, reserved, dataEnd: NO_END };
  check(checkBlockTable(table, limits));
  const fileOrder = blocksInFileOrder(table);
  if (order === 'ascending' && !isAscending(fileOrder)) {
    const actual = 'the order in which they were written';
    check([error('VHD_STREAM_ORDER', 'block table', header.tableOffset, 'blocks in ascending order', actual)]);
  }
  return { footer, footerBytes, header, size, layout, table, fileOrder, warnings };
}

async function* readBlocks(
  reader: ByteReader,
  head: Head,
  length: number,
  { file, exact = false }: ReadVhdStreamOptions,
): AsyncGenerator<Block, void> {
  const { header, layout, table, size } = head;
  try {
    for (const index of head.fileOrder) {
      await skipTo(reader, table[index]! * SECTOR_SIZE, `block ${index}`, file);
      const offset = index * header.blockSize;
      const inside = Math.min(header.blockSize, size - offset) / SECTOR_SIZE;
      if (header.blockSize > VHD_BLOCK_SIZE) {
        yield* readLargeBlock(reader, layout, { what: `block ${index}`, offset, inside, file });
        continue;
      }
      const bytes = await readPiece(reader, layout.stride, `block ${index}`, file);
      const data = bytes.subarray(layout.bitmapSize);
      for (const { start, count } of runsOfSetBits(bytes.subarray(0, layout.bitmapSize), inside)) {
        const at = start * SECTOR_SIZE;
        yield { offset: offset + at, data: data.subarray(at, at + count * SECTOR_SIZE) };
      }
    }
    await skipTo(reader, Math.max(reader.offset, layout.tableEnd), 'block table', file);
    await verifyEnd(reader, head.footerBytes, exact ? length : undefined, file);
  } finally {
    await reader.close();
  }
}

/** A block above the usual 2 MiB, in pieces of that: memory must not depend on what a file says. */
async function* readLargeBlock(
  reader: ByteReader,
  { bitmapSize, stride }: Head['layout'],
  { what, offset, inside, file }: { what: string; offset: number; inside: number; file: string | undefined },
): AsyncGenerator<Block, void> {
  const start = reader.offset;
  const bitmap = await readPiece(reader, bitmapSize, what, file);
  for (const run of runsOfSetBits(bitmap, inside)) {
    const end = (run.start + run.count) * SECTOR_SIZE;
    for (let at = run.start * SECTOR_SIZE; at < end; ) {
      await skipTo(reader, start + bitmapSize + at, what, file);
      const data = await readPiece(reader, Math.min(VHD_BLOCK_SIZE, end - at), what, file);
      yield { offset: offset + at, data };
      at += data.byteLength;
    }
  }
  await skipTo(reader, start + stride, what, file);
}

/** Reads to the end of the stream, which has to be the first footer once more. */
async function verifyEnd(reader: ByteReader, footer: Uint8Array, length?: number, file?: string): Promise<void> {
  const start = reader.offset;
  const last = new Uint8Array(FOOTER_SIZE);
  for await (const chunk of reader.rest()) {
    const piece = chunk.subarray(-FOOTER_SIZE);
    last.copyWithin(0, piece.byteLength);
    last.set(piece, FOOTER_SIZE - piece.byteLength);
  }
  const end = reader.offset;
  // Files of old Virtual PCs end in a footer of 511 bytes.
  const short = end % FOOTER_SIZE === FOOTER_SIZE - 1 ? 1 : 0;
  const footerAt = end - FOOTER_SIZE + short;
  const matches =
    footerAt >= start && Buffer.compare(last.subarray(short), footer.subarray(0, FOOTER_SIZE - short)) === 0;
  if (matches && (length === undefined || end === length - short)) return;
  if (matches) {
    throw new FormatError('STREAM_LENGTH', { what: 'VHD stream', offset: end, expected: length, actual: end, file });
  }
  const answer = findHttpHead(last);
  if (answer !== undefined) throw httpAnswer('last footer', start, answer, file);
  const expected = 'the same footer as at the start';
  const other = readFooter(last, Math.max(footerAt, start)).footer;
  if (other !== undefined && footerAt >= start) {
    throw new FormatError('VHD_FOOTERS_DIFFER', {
      what: 'last footer',
      offset: footerAt,
      expected,
      actual: 'another',
      file,
    });
  }
  const actual = `${end - start} bytes without it`;
  const at = { what: 'last footer', offset: start, expected, actual, file };
  throw new FormatError(footerAt < start ? 'STREAM_ENDED' : 'VHD_FOOTER_MISSING', at, { retryable: true });
}

/** Reads `length` bytes, which the caller has checked, and looks for a host's cry for help in their place. */
async function readPiece(reader: ByteReader, length: number, what: string, file?: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const offset = reader.offset;
  try {
    await reader.readInto(bytes);
  } catch (cause) {
    if (!(cause instanceof FormatError) || cause.code !== 'STREAM_ENDED') throw cause;
    const answer = findHttpHead(bytes);
    if (answer !== undefined) throw httpAnswer(what, offset, answer, file, cause);
    throw new FormatError('STREAM_ENDED', { ...cause.at, what, file }, { cause, retryable: true });
  }
  const answer = httpHeadOf(bytes);
  if (answer !== undefined) throw httpAnswer(what, offset, answer, file);
  return bytes;
}

async function skipTo(reader: ByteReader, offset: number, what: string, file?: string): Promise<void> {
  if (offset >= reader.offset) return reader.skip(offset - reader.offset);
  const expected = `nothing before ${reader.offset}, which a stream has passed`;
  throw new FormatError('VHD_STREAM_ORDER', {
    what,
    offset: reader.offset,
    expected,
    actual: `offset ${offset}`,
    file,
  });
}

function httpAnswer(what: string, offset: number, answer: string, file?: string, cause?: unknown): FormatError {
  const at = { what, offset, expected: `a ${what}`, actual: answer, file };
  return new FormatError('VHD_HTTP_ANSWER', at, cause === undefined ? {} : { cause });
}
