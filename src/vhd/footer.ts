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
  cookie: ascii(8),
  features: u32,
  version: u32,
  /** Where the dynamic header is; all ones in a fixed disk. */
  dataOffset: u64,
  /** Seconds since 2000-01-01T00:00:00Z. */
  timestamp: u32,
  creatorApplication: ascii(4),
  creatorVersion: u32,
  creatorHostOs: ascii(4),
  /** The disk's size when it was created, in bytes; libvhdi takes it for the size. */
  originalSize: size64As('VHD_TOO_LARGE', 'footer: original size'),
  /** The disk's size, in bytes. */
  currentSize: size64As('VHD_TOO_LARGE', 'footer: current size'),
  cylinders: u16,
  heads: u8,
  sectorsPerTrack: u8,
  diskType: u32,
  checksum: u32,
  uuid,
  savedState: u8,
  /** 1: an inner node of a chain that XenServer hides. Reserved for everybody else. */
  hidden: u8,
  reserved: raw(426),
};

/** Where a footer holds its checksum, in bytes. */
export const FOOTER_CHECKSUM_AT = 64;

/** The footer: the last 512 bytes of every VHD, and the first 512 of one with blocks. */
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
