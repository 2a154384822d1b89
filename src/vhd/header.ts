import { ascii, type Field, raw, type Shape, struct, u32, u64 } from '../bytes/index.ts';
import { FORMAT_VERSION, HEADER_COOKIE, HEADER_SIZE, NIL_UUID, NO_OFFSET, VHD_BLOCK_SIZE } from './constants.ts';
import { checksumOf, size64As, utf16be, uuid } from './fields.ts';

/** Where one of the texts that name the parent is. */
export interface ParentLocator {
  /** Four letters: `W2ru` (relative path), `W2ku` (path), `MacX` (file URL), NULs for none. */
  readonly code: string;
  /** The room that the text has: sectors if below 512, else bytes (tools disagree). */
  readonly dataSpace: number;
  /** The text's length in bytes. */
  readonly dataLength: number;
  /** In bytes from the start of the file; as big as 64 bits hold, so check before use. */
  readonly dataOffset: bigint;
}

/** The code of an unused locator. */
export const NO_LOCATOR = '\0\0\0\0';
const LOCATOR_COUNT = 8;
const LOCATOR_SIZE = 24;
const code = ascii(4);

const locators: Field<readonly ParentLocator[]> = {
  size: LOCATOR_COUNT * LOCATOR_SIZE,
  read(view, at, base) {
    return Array.from({ length: LOCATOR_COUNT }, (_, i) => {
      const start = at + i * LOCATOR_SIZE;
      return {
        code: code.read(view, start, base),
        dataSpace: view.getUint32(start + 4),
        dataLength: view.getUint32(start + 8),
        dataOffset: view.getBigUint64(start + 16),
      };
    });
  },
  write(view, at, value) {
    if (value.length > LOCATOR_COUNT)
      throw new RangeError(`${value.length} parent locators, room for ${LOCATOR_COUNT}`);
    value.forEach((locator, i) => {
      const start = at + i * LOCATOR_SIZE;
      code.write(view, start, locator.code);
      view.setUint32(start + 4, locator.dataSpace);
      view.setUint32(start + 8, locator.dataLength);
      view.setBigUint64(start + 16, locator.dataOffset);
    });
  },
};

const fields = {
  /** `cxsparse`. */
  cookie: ascii(8),
  /** All ones. */
  dataOffset: u64,
  /** Where the block table is, in bytes. */
  tableOffset: size64As('VHD_TABLE_OFFSET', 'header: block table offset'),
  /** `0x10000`. */
  version: u32,
  /** How many entries the block table has. */
  maxTableEntries: u32,
  /** Bytes of data in a block. */
  blockSize: u32,
  /** Over the header, with zeros in the place of this field. */
  checksum: u32,
  /** The UUID in the parent's footer; all zeros: the parent is a raw file (XenServer). */
  parentUuid: uuid,
  /** When the parent was last written to, in seconds since 2000-01-01T00:00:00Z. */
  parentTimestamp: u32,
  /** Zeros. */
  reserved: raw(4),
  /** The name of the parent, as its maker called it. */
  parentName: utf16be(512),
  /** Where texts lie that name the parent. */
  locators,
  /** Zeros. */
  reserved2: raw(256),
};

/** Where a header holds its checksum, in bytes. */
export const HEADER_CHECKSUM_AT = 36;

/**
 * The dynamic header: where the block table is, how large blocks are, who the parent is.
 *
 * @interface
 */
export type VhdHeader = Shape<typeof fields>;

/** Bytes to values and back. `encode` writes the checksum it is given: see {@link encodeHeader}. */
export const headerCodec = struct('header', HEADER_SIZE, fields);

/** The bytes of a header, with the checksum that belongs to them. */
export function encodeHeader(header: VhdHeader): Uint8Array {
  const bytes = headerCodec.encode(header);
  new DataView(bytes.buffer).setUint32(HEADER_CHECKSUM_AT, checksumOf(bytes, HEADER_CHECKSUM_AT));
  return bytes;
}

/** What our headers differ in. */
export interface HeaderValues {
  readonly tableOffset: number;
  readonly maxTableEntries: number;
  readonly parentUuid?: string;
  readonly parentTimestamp?: number;
  readonly parentName?: string;
  readonly locators?: readonly ParentLocator[];
}

/** A header as we write it. */
export function makeHeader(values: HeaderValues): VhdHeader {
  const header: VhdHeader = {
    cookie: HEADER_COOKIE,
    dataOffset: NO_OFFSET,
    tableOffset: values.tableOffset,
    version: FORMAT_VERSION,
    maxTableEntries: values.maxTableEntries,
    blockSize: VHD_BLOCK_SIZE,
    checksum: 0,
    parentUuid: values.parentUuid ?? NIL_UUID,
    parentTimestamp: values.parentTimestamp ?? 0,
    reserved: new Uint8Array(4),
    parentName: values.parentName ?? '',
    locators: values.locators ?? [],
    reserved2: new Uint8Array(256),
  };
  return headerCodec.decode(encodeHeader(header)); // so that `checksum` and the eight locators are those of the bytes
}
