/** Bytes. */
export const KIB = 1024;
/** Bytes. */
export const MIB = 1024 * KIB;
/** Bytes. */
export const GIB = 1024 * MIB;

/** The unit in which a VHD on storage is allocated. */
export const VHD_BLOCK = 2 * MIB;
/** The largest virtual size of a VHD. */
export const MAX_VHD = 2040 * GIB;
