/**
 * Plans and runs restores of both strategies, reads them back, and makes archives of points.
 *
 * @module xen-backup-sdk/restore
 */

export { type PlanRestoreOptions, planRestore } from './plan-restore.ts';
export { type RestoreDiskOptions, restoreDisk } from './restore-disk.ts';
export type { RestoreConflict, RestoreDiskPlan, RestoreNicPlan, RestorePlan } from './restore-plan.ts';
export { type RestoreResult, type RunRestoreOptions, restoreVm, runRestore } from './run-restore.ts';
export { type SynthesizedXva, type SynthesizeXvaOptions, synthesizeXva } from './synthesize-xva.ts';
export { type VerifiedDisk, type VerifyRestoredOptions, verifyRestored } from './verify-restored.ts';
