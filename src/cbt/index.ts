/**
 * Changed blocks: the host's bitmap as extents.
 *
 * @module xen-backup-sdk/cbt
 */

export {
  CBT_BLOCK_SIZE,
  ChangedBlocks,
  type ChangedBlocksOptions,
  type ChangedExtent,
  type ChangedExtentsOptions,
} from './changed-blocks.ts';
export { type ChangedBlocksHost, queryChangedBlocks } from './query.ts';
export { restrictToChanges } from './restrict-to-changes.ts';
