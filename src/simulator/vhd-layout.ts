import { ascii, raw, size64, struct, u8, u16, u32, u64 } from '../bytes/index.ts';

/**
 * VHD as the simulated host writes and reads it. Deliberately no code in common with the library's own VHD layer: a
 * mistake made on one side only shows up in the tests of the other.
 *
 * @see Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0; fields beyond it as in
 * xapi-project/xen-api `ocaml/libs/vhd/vhd_format/f.ml`.
 */

/** In bytes. */
export const SECTOR_SIZE = 512;
/** Data bytes of a block on a XenServer. */
export const VHD_BLOCK_SIZE = 2 * 1024 * 1024;
/** The largest virtual size the host exports as VHD, in bytes: 2040 GiB. */
export const MAX_VHD_SIZE = 2040 * 1024 ** 3;
/** An entry of the block allocation table that says "no such block". */
export const ABSENT_BLOCK = 0xffffffff;
/** What a 64-bit offset holds that points nowhere. */
export const NO_OFFSET = 0xffff_ffff_ffff_ffffn;
/** Version 1.0, of the footer and of the header. */
export const VHD_VERSION = 0x00010000;

export const vhdFooter = struct('VHD footer', 512, {
  cookie: ascii(8),
  features: u32,
  version: u32,
  dataOffset: u64,
  timestamp: u32,
  creator: ascii(4),
  creatorVersion: u32,
  creatorHost: u32,
  originalSize: size64,
  currentSize: size64,
  cylinders: u16,
  heads: u8,
  sectorsPerTrack: u8,
  diskType: u32,
  checksum: u32,
  uuid: raw(16),
  savedState: u8,
  reserved: raw(427),
});
export type VhdFooter = ReturnType<typeof vhdFooter.decode>;

export const vhdHeader = struct('VHD header', 1024, {
  cookie: ascii(8),
  dataOffset: u64,
  tableOffset: u64,
  version: u32,
  tableEntries: u32,
  blockSize: u32,
  checksum: u32,
  parentUuid: raw(16),
  parentTimestamp: u32,
  reserved: raw(4),
  parentName: raw(512),
  locators: raw(192),
  reservedEnd: raw(256),
});
export type VhdHeader = ReturnType<typeof vhdHeader.decode>;

/** One of the eight parent locators in the header. */
export const vhdLocator = struct('VHD parent locator', 24, {
  platform: ascii(4),
  space: u32,
  length: u32,
  reserved: u32,
  offset: u64,
});

/** Where the checksum lies in a footer and in a header, in bytes. */
export const CHECKSUM_AT = { footer: 64, header: 36 } as const;

/** The ones' complement of the sum of all bytes, the checksum's own four left out. */
export function vhdChecksum(bytes: Uint8Array, checksumAt: number): number {
  let sum = 0;
  for (const byte of bytes) sum += byte; // at most 1 KiB: the sum stays far below 2^53
  for (let at = checksumAt; at < checksumAt + 4; at++) sum -= bytes[at] ?? 0;
  return ~sum >>> 0;
}

/** `size` rounded up to whole sectors, in bytes. */
export function toSectors(size: number): number {
  return Math.ceil(size / SECTOR_SIZE) * SECTOR_SIZE;
}

/** A uuid's 16 bytes, in the order in which they print. */
export function uuidBytes(uuid: string): Uint8Array {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  if (bytes.byteLength !== 16) throw new TypeError(`"${uuid}" is not a uuid`);
  return new Uint8Array(bytes);
}

/** The inverse of {@link uuidBytes}. */
export function uuidText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
