import { SECTOR_SIZE } from './constants.ts';

/** Cylinders, heads and sectors per track, for the BIOS and for tools that compute a disk's size from them. */
export interface Geometry {
  /** At most 65535. */
  readonly cylinders: number;
  /** At most 16. */
  readonly heads: number;
  /** At most 255. */
  readonly sectorsPerTrack: number;
}

const MOST_SECTORS = 65535 * 16 * 255;

/**
 * The geometry for a disk of `size` bytes: the algorithm of the VHD specification (appendix "CHS Calculation") in whole
 * numbers, rounded down. Rounding up makes qemu and XenServer's checker refuse the file.
 */
export function geometryOf(size: number): Geometry {
  const sectors = Math.min(Math.ceil(size / SECTOR_SIZE), MOST_SECTORS);
  const of = (sectorsPerTrack: number, heads: number): Geometry => {
    const tracks = Math.floor(sectors / sectorsPerTrack);
    return { cylinders: Math.floor(tracks / heads), heads, sectorsPerTrack };
  };
  if (sectors >= 65535 * 16 * 63) return of(255, 16);
  const tracks = Math.floor(sectors / 17);
  const heads = Math.max(4, Math.ceil(tracks / 1024));
  if (heads <= 16 && tracks < heads * 1024) return of(17, heads);
  return Math.floor(sectors / 31) < 16 * 1024 ? of(31, 16) : of(63, 16);
}

/** How many bytes the geometry can address. */
export function geometrySize({ cylinders, heads, sectorsPerTrack }: Geometry): number {
  return cylinders * heads * sectorsPerTrack * SECTOR_SIZE;
}
