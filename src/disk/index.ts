/**
 * Everything that has blocks is a `Disk`: files, memory, layers over one another; read, compare, hash, write out.
 *
 * @module xen-backup-sdk/disk
 */

export type { ByteSource, SizedStream } from '../bytes/index.ts';
export { type BlockDigest, BlockDigests, DIGEST_BLOCK_SIZE, digestDisk } from './block-digests.ts';
export { compareDisks, type DiskComparison } from './compare.ts';
export {
  type Block,
  type BlockStream,
  type Disk,
  type HalfOpenRange,
  type RangeOptions,
  rangeOf,
  type WritableDisk,
} from './disk.ts';
export { countExtentBytes, cutExtent, type Extent, type ExtentKind, joinExtents } from './extent.ts';
export { hashDisk } from './hash.ts';
export { memoryDisk } from './memory-disk.ts';
export { overlay } from './overlay.ts';
export { openRawDisk, rawDisk } from './raw-disk.ts';
export { DEFAULT_BLOCK_SIZE, type ReadBlocksOptions, readBlocks } from './read-blocks.ts';
export { type WriteRawOptions, writeRaw } from './write-raw.ts';
