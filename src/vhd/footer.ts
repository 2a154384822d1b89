import { ascii, raw, type Shape, struct, u8, u16, u32, u64 } from '../bytes/index.ts';
import {
  DISK_TYPES,
  FOOTER_COOKIE,
  FOOTER_SIZE,
  FORMAT_VERSION,
  NO_OFFSET,
  RESERVED_FEATURE,
  type VhdKind,
} from './constants.ts';
import { checksumOf, size64As, uuid } from './fields.ts';
import { geometryOf } from './geometry.ts';

const fields = {
  /** `conectix`. */
  cookie: ascii(8),
  /** Bit 1 is always set. */
  features: u32,
  /** `0x10000`. */
  version: u32,
  /** Where the dynamic header is; all ones in a fixed disk. */
  dataOffset: u64,
  /** Seconds since 2000-01-01T00:00:00Z. */
  timestamp: u32,
  /** The program that made it, for example `win `. */
  creatorApplication: ascii(4),
  /** Of that program. */
  creatorVersion: u32,
  /** The system that it ran on, for example `Wi2k`. */
  creatorHostOs: ascii(4),
  /** The disk's size when it was created, in bytes; libvhdi takes it for the size. */
  originalSize: size64As('VHD_TOO_LARGE', 'footer: original size'),
  /** The disk's size, in bytes. */
  currentSize: size64As('VHD_TOO_LARGE', 'footer: current size'),
  /** See {@link Geometry}. */
  cylinders: u16,
  /** See {@link Geometry}. */
  heads: u8,
  /** See {@link Geometry}. */
  sectorsPerTrack: u8,
  /** 2: fixed. 3: dynamic. 4: differencing. */
  diskType: u32,
  /** Over the footer, with zeros in the place of this field. */
  checksum: u32,
  /** The VHD's own, by which others name it as their parent. */
  uuid,
  /** 1: a saved state belongs to the disk. */
  savedState: u8,
  /** 1: an inner node of a chain that XenServer hides. Reserved for everybody else. */
  hidden: u8,
  /** Zeros. */
  reserved: raw(426),
};

/** Where a footer holds its checksum, in bytes. */
export const FOOTER_CHECKSUM_AT = 64;

/**
 * The footer: the last 512 bytes of every VHD, and the first 512 of one with blocks.
 *
 * @interface
 */
export type VhdFooter = Shape<typeof fields>;

/** Bytes to values and back. `encode` writes the checksum it is given: see {@link encodeFooter}. */
export const footerCodec = struct('footer', FOOTER_SIZE, fields);

/** The bytes of a footer, with the checksum that belongs to them. */
export function encodeFooter(footer: VhdFooter): Uint8Array {
  const bytes = footerCodec.encode(footer);
  new DataView(bytes.buffer).setUint32(FOOTER_CHECKSUM_AT, checksumOf(bytes, FOOTER_CHECKSUM_AT));
  return bytes;
}

/** What our footers differ in. */
export interface FooterValues {
  /** In bytes. */
  readonly size: number;
  readonly kind: VhdKind;
  readonly uuid: string;
  /** Seconds since 2000-01-01T00:00:00Z. */
  readonly timestamp: number;
}

/**
 * A footer as we write it. The creator is `win ` 6.1, because that is the one for which qemu takes the size from the
 * size field and XenServer expects no batmap (qemu `block/vpc.c`, blktap `vhd/lib/libvhd.c`).
 */
export function makeFooter({ size, kind, uuid, timestamp }: FooterValues): VhdFooter {
  const footer: VhdFooter = {
    cookie: FOOTER_COOKIE,
    features: RESERVED_FEATURE,
    version: FORMAT_VERSION,
    dataOffset: kind === 'fixed' ? NO_OFFSET : BigInt(FOOTER_SIZE),
    timestamp,
    creatorApplication: 'win ',
    creatorVersion: 0x00060001,
    creatorHostOs: 'Wi2k',
    originalSize: size,
    currentSize: size,
    ...geometryOf(size),
    diskType: DISK_TYPES[kind],
    checksum: 0,
    uuid,
    savedState: 0,
    hidden: 0,
    reserved: new Uint8Array(426),
  };
  return footerCodec.decode(encodeFooter(footer)); // so that `checksum` is that of the bytes
}
