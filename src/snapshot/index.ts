/**
 * Snapshots on the host: quiesced or not, hooks, change tracking, and what killed runs left.
 *
 * @module xen-backup-sdk/snapshot
 */

export { blockMigration, ownersBlocks, unblockMigration } from './block-migration.ts';
export { chainDepth, MAX_CHAIN } from './chain-depth.ts';
export {
  disableChangedBlockTracking,
  enableChangedBlockTracking,
  type TrackingResult,
} from './changed-block-tracking.ts';
export {
  type CleanUpOptions,
  type CleanUpResult,
  cleanUp,
  type FindLeftoversOptions,
  findLeftovers,
  type Leftover,
  leftoverText,
} from './clean-up.ts';
export { type DestroySnapshotOptions, destroyOne, destroySnapshot } from './destroy-snapshot.ts';
export { CLEAN_UP_MS, discardRun, removed } from './discard-run.ts';
export type { HookCommand } from './hook-command.ts';
export type { HookContext, SnapshotHook, SnapshotHooks } from './hooks.ts';
export { type BasesOwner, removeKeptBases } from './kept-bases.ts';
export type { SnapshotDisk } from './mark-snapshot.ts';
export {
  bearsWorkingName,
  intentKey,
  isOurKey,
  type KeptFor,
  OWNER_KEY,
  type OwnerMark,
  RESTORED_FROM_KEY,
  type RestoredFromMark,
  type ResumeMark,
  type Runner,
  readOwnerMark,
  readRestoredFrom,
  removeMark,
  type StartedRun,
  startRun,
  workingName,
  writeMark,
} from './ownership.ts';
export { type PurgeResult, purgeSnapshotData } from './purge-snapshot.ts';
export type { QuiesceMode, SnapshotConsistency, SnapshotObserver } from './quiesce.ts';
export { assertCanSnapshot } from './refusals.ts';
export { adoptSnapshot, findLeftSnapshot, type LeftSnapshot } from './reopen-snapshot.ts';
export {
  keepSnapshot,
  makeSnapshot,
  type Snapshot,
  type TakeSnapshotOptions,
  takeSnapshot,
} from './take-snapshot.ts';
