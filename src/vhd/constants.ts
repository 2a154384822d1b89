/** The unit of every VHD structure, in bytes. */
export const SECTOR_SIZE = 512;
/** Bytes of data in a block of the files we write; what every XenServer and XCP-ng writes. */
export const VHD_BLOCK_SIZE = 2 * 1024 * 1024;
/**
 * The largest disk that hosts keep in a VHD, in bytes: 2040 GiB. Block positions are 32-bit sector numbers, and a full
 * disk of 2 TiB plus its bitmaps does not fit (`SM drivers/vhdutil.py`, `xen-api ocaml/xapi/export_raw_vdi.ml`).
 */
export const MAX_VHD_SIZE = 2040 * 1024 ** 3;

/** In bytes. */
export const FOOTER_SIZE = 512;
/** The dynamic header, in bytes. */
export const HEADER_SIZE = 1024;

/** An unused entry of the block table. */
export const ABSENT = 0xffffffff;
/** "No offset": what the data offset of a fixed disk's footer and of every header holds. */
export const NO_OFFSET = 0xffff_ffff_ffff_ffffn;

export const FOOTER_COOKIE = 'conectix';
/** What XenServer writes over a footer's cookie to disable the file. */
export const POISON_COOKIE = 'v_poison';
export const HEADER_COOKIE = 'cxsparse';
/** Version 1.0 of footer and header. */
export const FORMAT_VERSION = 0x00010000;
/** Of the footer's features: must be set. */
export const RESERVED_FEATURE = 2;

/** The UUID of nothing. */
export const NIL_UUID = '00000000-0000-0000-0000-000000000000';

/**
 * What a VHD is. `fixed`: flat data and a footer. `dynamic`: blocks, what is not there is zero. `differencing`: blocks,
 * what is not there is in the parent.
 */
export type VhdKind = 'fixed' | 'dynamic' | 'differencing';

/** The footer's disk type of each kind. */
export const DISK_TYPES: Readonly<Record<VhdKind, number>> = { fixed: 2, dynamic: 3, differencing: 4 };

/** The kind of a footer's disk type; `undefined` for the types that no tool supports (0, 1, 5, 6). */
export function kindOf(diskType: number): VhdKind | undefined {
  return (Object.keys(DISK_TYPES) as VhdKind[]).find((kind) => DISK_TYPES[kind] === diskType);
}

const EPOCH_MS = Date.UTC(2000, 0, 1);

/** A time as VHDs hold it: whole seconds since 2000-01-01T00:00:00Z, in 32 bits; times outside are clamped. */
export function toVhdTime(time: Date): number {
  return Math.min(Math.max(Math.floor((time.getTime() - EPOCH_MS) / 1000), 0), 0xffffffff);
}

/** The time that a VHD's seconds stand for. */
export function fromVhdTime(seconds: number): Date {
  return new Date(EPOCH_MS + seconds * 1000);
}

/** `value` rounded up to a multiple of 512. */
export function roundUpToSector(value: number): number {
  return Math.ceil(value / SECTOR_SIZE) * SECTOR_SIZE;
}

/** Bytes of the sector bitmap in front of a block's data: one bit a sector, padded to whole sectors. */
export function bitmapSizeOf(blockSize: number): number {
  return roundUpToSector(blockSize / SECTOR_SIZE / 8);
}

/** The bitmap of a block that we write, in bytes. */
export const BITMAP_SIZE = bitmapSizeOf(VHD_BLOCK_SIZE);
/** Bitmap and data of a block that we write, in bytes. */
export const STRIDE = BITMAP_SIZE + VHD_BLOCK_SIZE;
