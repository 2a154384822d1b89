import { randomUUID } from 'node:crypto';
import type { SizedStream } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import {
  ABSENT_BLOCK,
  CHECKSUM_AT,
  NO_OFFSET,
  SECTOR_SIZE,
  toSectors,
  uuidBytes,
  VHD_BLOCK_SIZE,
  VHD_VERSION,
  vhdChecksum,
  vhdFooter,
  vhdHeader,
  vhdLocator,
} from './vhd-layout.ts';

const FEATURES_RESERVED = 2; // must be set in every footer
const DYNAMIC = 3;
const DIFFERENCING = 4;
const HEADER_AT = 512;
const LOCATOR_AT = 1536;
const TABLE_AT = 2048;
const SECTORS_IN_BITMAP = 1;

/** What {@link encodeVhd} turns into a VHD. */
export interface VhdSource {
  /** Virtual size in bytes; the last block may be partial. */
  readonly size: number;
  /** Indexes of the 2 MiB blocks to send, ascending. */
  readonly blocks: readonly number[];
  /** Makes it a differencing VHD: the node on the storage that it builds upon. */
  readonly parent?: { readonly uuid: string; readonly path: string } | undefined;
  /** Fills `target` from `offset` (bytes) of the virtual disk. */
  readInto(target: Uint8Array, offset: number, options?: CallOptions): Promise<void>;
}

/**
 * The stream of `GET /export_raw_vdi?format=vhd`, byte for byte as a host lays it out: footer, header at 512, a zero
 * sector at 1536 (room for a locator that is never written), block table at 2048, blocks in ascending order with
 * all-ones bitmaps, footer. Each call draws a new uuid, as each export on a host does.
 *
 * @see xapi-project/xen-api `ocaml/libs/vhd/vhd_format/f.ml`, `vhd_common`
 */
export function encodeVhd(source: VhdSource, options: CallOptions = {}): SizedStream {
  const entries = Math.ceil(source.size / VHD_BLOCK_SIZE);
  const tableSize = toSectors(entries * 4);
  const stride = VHD_BLOCK_SIZE + SECTORS_IN_BITMAP * SECTOR_SIZE;
  const dataAt = TABLE_AT + tableSize;
  return {
    length: dataAt + source.blocks.length * stride + SECTOR_SIZE,
    chunks: chunks(),
  };

  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    const footer = encodeFooter(source);
    const head = new Uint8Array(dataAt);
    head.set(footer);
    head.set(encodeHeader(source, entries), HEADER_AT);
    head.set(encodeTable(source.blocks, entries, tableSize, dataAt / SECTOR_SIZE, stride / SECTOR_SIZE), TABLE_AT);
    yield head;
    let last: Uint8Array | undefined;
    for (const block of source.blocks) {
      options.signal?.throwIfAborted();
      const offset = block * VHD_BLOCK_SIZE;
      const length = Math.min(VHD_BLOCK_SIZE, source.size - offset);
      // Past the end of a disk the host's copy buffer still holds the block before: readers must not look there.
      const chunk: Uint8Array = length < VHD_BLOCK_SIZE && last !== undefined ? last.slice() : new Uint8Array(stride);
      chunk.fill(0xff, 0, SECTOR_SIZE);
      await source.readInto(chunk.subarray(SECTOR_SIZE, SECTOR_SIZE + length), offset, options);
      last = chunk;
      yield chunk;
    }
    yield footer.slice();
  }
}

function encodeFooter({ size, parent }: VhdSource): Uint8Array {
  const bytes = vhdFooter.encode({
    cookie: 'conectix',
    features: FEATURES_RESERVED,
    version: VHD_VERSION,
    dataOffset: BigInt(HEADER_AT),
    timestamp: 0,
    creator: 'caml',
    creatorVersion: 1,
    creatorHost: 0,
    originalSize: size,
    currentSize: size,
    ...geometry(size),
    diskType: parent === undefined ? DYNAMIC : DIFFERENCING,
    checksum: 0,
    uuid: uuidBytes(randomUUID()),
    savedState: 0,
    reserved: new Uint8Array(427),
  });
  return withChecksum(bytes, CHECKSUM_AT.footer);
}

function encodeHeader({ parent }: VhdSource, tableEntries: number): Uint8Array {
  const locators = new Uint8Array(192);
  if (parent !== undefined) {
    const link = `file://./${parent.path.slice(parent.path.lastIndexOf('/') + 1)}`;
    const locator = { platform: 'MacX', space: 1, length: link.length, reserved: 0, offset: BigInt(LOCATOR_AT) };
    locators.set(vhdLocator.encode(locator));
  }
  const bytes = vhdHeader.encode({
    cookie: 'cxsparse',
    dataOffset: NO_OFFSET,
    tableOffset: BigInt(TABLE_AT),
    version: VHD_VERSION,
    tableEntries,
    blockSize: VHD_BLOCK_SIZE,
    checksum: 0,
    parentUuid: parent === undefined ? new Uint8Array(16) : uuidBytes(parent.uuid),
    parentTimestamp: 0,
    reserved: new Uint8Array(4),
    parentName: utf16Name(parent?.path ?? ''),
    locators,
    reservedEnd: new Uint8Array(256),
  });
  return withChecksum(bytes, CHECKSUM_AT.header);
}

function encodeTable(
  blocks: readonly number[],
  entries: number,
  tableSize: number,
  firstSector: number,
  strideSectors: number,
): Uint8Array {
  const bytes = new Uint8Array(tableSize).fill(0xff); // ABSENT_BLOCK, in the padding, too
  const view = new DataView(bytes.buffer);
  let before = -1;
  blocks.forEach((block, position) => {
    if (block <= before || block >= entries) {
      throw new RangeError(`VHD blocks must ascend below ${entries}: ${block} follows ${before}`);
    }
    const sector = firstSector + position * strideSectors;
    if (sector >= ABSENT_BLOCK) throw new RangeError(`sector ${sector} does not fit a VHD's block table`);
    view.setUint32(block * 4, sector);
    before = block;
  });
  return bytes;
}

/** The parent's name in big-endian UTF-16, cut at 255 units, so that a NUL stays. */
function utf16Name(name: string): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  for (let unit = 0; unit < Math.min(name.length, 255); unit++) view.setUint16(unit * 2, name.charCodeAt(unit));
  return bytes;
}

function withChecksum(bytes: Uint8Array, at: number): Uint8Array {
  new DataView(bytes.buffer).setUint32(at, vhdChecksum(bytes, at));
  return bytes;
}

/** Cylinders, heads and sectors for a disk, by the rule in the format's appendix as the host computes it. */
function geometry(size: number): { cylinders: number; heads: number; sectorsPerTrack: number } {
  const sectors = Math.min(Math.ceil(size / SECTOR_SIZE), 65535 * 16 * 255);
  let sectorsPerTrack = 255;
  let heads = 16;
  let tracks = Math.floor(sectors / sectorsPerTrack);
  if (sectors <= 65535 * 16 * 63) {
    sectorsPerTrack = 17;
    tracks = Math.floor(sectors / sectorsPerTrack);
    heads = Math.max(4, Math.ceil(tracks / 1024));
    for (const wider of [31, 63]) {
      if (tracks < heads * 1024 && heads <= 16) break;
      sectorsPerTrack = wider;
      heads = 16;
      tracks = Math.floor(sectors / wider);
    }
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectorsPerTrack };
}
