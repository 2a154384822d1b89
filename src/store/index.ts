/**
 * Named bytes, the repository of restore points in them, retention, verification.
 *
 * @module xen-backup-sdk/store
 */

export { type CopyPointOptions, type CopyReport, copyPoint } from './copy-point.ts';
export { type DirectoryStoreOptions, directoryStore } from './directory-store.ts';
export type { StoreInput } from './intake.ts';
export type { PointFileNames } from './layout.ts';
export type {
  AcquireLeaseOptions,
  Lease,
  LeaseHolder,
  LeaseInfo,
  LeasePurpose,
  WaitOptions,
} from './lease.ts';
export {
  type Consistency,
  type Decision,
  type DiskMode,
  MANIFEST_FORMAT,
  type Manifest,
  type ManifestDisk,
  type ManifestFile,
  type ManifestImage,
  type PointId,
  type PointType,
  type Strategy,
  type Warning,
  WRITER,
} from './manifest.ts';
export { memoryStore } from './memory-store.ts';
export { type OpenRepositoryOptions, openRepository } from './open-repository.ts';
export type { CommitOptions, FileRole, PointContent, PointWriter } from './point-writer.ts';
export type { PlanPruneOptions, PruneOptions, PrunePlan, PruneReport, UnreadablePoint } from './prune.ts';
export type {
  BeginOptions,
  LatestOptions,
  ListOptions,
  PointSummary,
  RemoveOptions,
  Repository,
} from './repository.ts';
export {
  decideRetention,
  type RetentionPoint,
  type RetentionPolicy,
  type RetentionReason,
  type RetentionVerdict,
} from './retention.ts';
export type { AbandonedOptions, Listing, StagedFile, StageOptions, Store, WriteOptions, Written } from './store.ts';
export {
  readUnfinished,
  removeUnfinished,
  stageDraft,
  type UnfinishedDisk,
  type UnfinishedRun,
  writeUnfinished,
} from './unfinished.ts';
export type { Damage, DamagedPart, PointReport, VerifyOptions, VerifyReport } from './verify-report.ts';
export { parseVmMetadata, type StoredRecord, VM_METADATA_FORMAT, type VmMetadata } from './vm-metadata.ts';
