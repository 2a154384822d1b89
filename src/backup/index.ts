/**
 * Plans and runs backups by both strategies.
 *
 * @module xen-backup-sdk/backup
 */

export type { BackupPlan, ByteEstimate, DiskBase, DiskPlan, PlanConflict, ResumePlan } from './backup-plan.ts';
export { type PlanBackupOptions, planBackup } from './plan-backup.ts';
export { type BackupResult, backupVm, type RunBackupOptions, runBackup } from './run-backup.ts';
export { type DiscardUnfinishedOptions, discardUnfinished } from './unfinished.ts';
