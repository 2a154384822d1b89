import { randomUUID } from 'node:crypto';
import { BackupError, type CallOptions, type ReceiptItem, type RunRecorder, systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import {
  adoptSnapshot,
  CLEAN_UP_MS,
  type CleanUpOptions,
  cleanUp,
  findLeftovers,
  findLeftSnapshot,
  type ResumeMark,
  readOwnerMark,
  removed,
  type Snapshot,
  unblockMigration,
} from '../snapshot/index.ts';
import {
  type Repository,
  removeUnfinished,
  type UnfinishedRun,
  type WaitOptions,
  writeUnfinished,
} from '../store/index.ts';
import type { BackupPlan, ResumePlan } from './backup-plan.ts';
import type { RunBackupOptions } from './run-backup.ts';
import type { DiskJob } from './transfer-disk.ts';

/** What the marks of a run say, so that it can be gone on with: nothing, unless the plan says for how long. */
export function resumeMark({ id }: Repository, plan: BackupPlan, now: number): ResumeMark | undefined {
  const { resumeWithinMs } = plan;
  if (resumeWithinMs === undefined) return undefined;
  return { repositoryId: id, until: new Date(now + resumeWithinMs).toISOString() };
}

/** Of tracking: not this run's to turn off, whatever becomes of it. Somebody else may have built on it since. */
const ENABLED_BEFORE = 'enabled before';
/** What the ledger says of a disk whose tracking this run turned on, or the one that it goes on with. */
export const TRACKING_ENABLED: ReadonlySet<string | undefined> = new Set(['enabled', ENABLED_BEFORE]);

/** The run that a plan goes on with: its snapshot, which is still marked as that run's, and what is recorded of it. */
export interface Resumed {
  readonly snapshot: Snapshot;
  readonly unfinished: UnfinishedRun;
}

/** Finds the run that a plan goes on with. Changes nothing. */
export async function findResumed(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  { snapshotUuid: uuid, runId }: ResumePlan,
  recorder: RunRecorder,
  options: CallOptions & { readonly now: number },
): Promise<Resumed> {
  const unfinished = await repository.inspectUnfinished(vm.uuid, options);
  const left = await findLeftSnapshot(host, vm, { uuid, repositoryId: repository.id, now: options.now });
  if (unfinished === undefined || unfinished.snapshot.uuid !== uuid || left === undefined) {
    const message = `the plan for ${vm.name_label} no longer fits: run ${runId} cannot be gone on with; plan again`;
    throw new BackupError('PLAN_STALE', message, { retryable: true, facts: { vmUuid: vm.uuid, runId } });
  }
  for (const subject of unfinished.trackingEnabled) {
    const reason = 'by the run that this one goes on with';
    recorder.decide({ subject, topic: 'tracking', choice: ENABLED_BEFORE, reason });
  }
  const { takenAt, consistency } = unfinished.snapshot;
  return { snapshot: { ...left, takenAt: Date.parse(takenAt), consistency }, unfinished };
}

/** Records what a later run needs to go on with this one. */
export async function recordUnfinished(
  repository: Repository,
  snapshot: Snapshot,
  jobs: readonly DiskJob[],
  before: UnfinishedRun | undefined,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<UnfinishedRun> {
  const { mark, uuid, takenAt, consistency } = snapshot;
  const run: UnfinishedRun = {
    format: 1,
    runId: recorder.runId,
    startedAt: mark.at,
    until: mark.resume?.until ?? mark.at,
    snapshot: { uuid, takenAt: new Date(takenAt).toISOString(), consistency },
    disks: jobs.map(({ plan, snapshot: { vdiUuid, snapshotVdiUuid, size }, delta }) => ({
      vdiUuid,
      snapshotVdiUuid,
      size,
      mode: delta === undefined ? 'full' : 'delta',
      basePoint: delta === undefined ? undefined : plan.base?.point,
      vhdUuid: before?.disks.find((disk) => disk.vdiUuid === vdiUuid)?.vhdUuid ?? randomUUID(),
    })),
    trackingEnabled: recorder.decisions
      .filter(({ topic, choice }) => topic === 'tracking' && TRACKING_ENABLED.has(choice))
      .map(({ subject }) => subject),
  };
  // A run that is not to be gone on with leaves no record; what an earlier one has stays until this one ends.
  if (mark.resume !== undefined) await writeUnfinished(repository.store, snapshot.vmUuid, run, options);
  return run;
}

/** Failures after which the same would happen again. */
const POINTLESS: ReadonlySet<string> = new Set(['FALLBACK_REFUSED', 'PLAN_STALE']);

/** Is a run that fails so worth going on with? */
export function isWorthResuming(error: unknown): boolean {
  return !(error instanceof BackupError && POINTLESS.has(error.code));
}

/** Puts a run that failed aside: its snapshot stays, and tracking, and the VM may migrate again. Its time begins now. */
export async function putAside(
  host: Host,
  repository: Repository,
  plan: BackupPlan,
  { consistency, takenAt, ...snapshot }: Snapshot,
  recorder: RunRecorder,
  { clock = systemClock, signal, isLost }: CleanUpOptions & { readonly isLost: boolean },
): Promise<void> {
  const { receipt, runId, decisions } = recorder;
  const { uuid, vmUuid, vmRef, mark } = snapshot;
  const name = plan.vm.name;
  if (!isLost) recorder.resumableUntil = mark.resume?.until;
  const { error } = await removed(async () => {
    if (isLost) return; // another run has it now
    const record = await host.findRecord('VM', uuid);
    if (record === undefined || readOwnerMark(record)?.runId !== runId) return; // not this run's yet, or another's by now
    const resume = resumeMark(repository, plan, clock.now());
    // It may have become the base of a point that never came to be.
    await adoptSnapshot(host, snapshot, { ...mark, resume });
    const found = await repository.inspectUnfinished(vmUuid, { signal });
    if (found?.runId !== runId || resume === undefined) return;
    await writeUnfinished(repository.store, vmUuid, { ...found, until: resume.until }, { signal });
    recorder.resumableUntil = resume.until;
  });
  receipt.push({ kind: 'snapshot', uuid, name, state: 'kept', ...(error !== undefined && { error }) });
  const unblocked = await removed(() => unblockMigration(host, { ref: vmRef }, runId));
  if (unblocked.state === 'left') receipt.push({ kind: 'block', uuid: vmUuid, name, ...unblocked });
  for (const { subject, topic, choice } of decisions) {
    if (topic !== 'tracking' || choice !== 'enabled') continue;
    const disk = plan.disks.find(({ vdiUuid }) => vdiUuid === subject)?.name ?? '';
    receipt.push({ kind: 'tracking', uuid: subject, name: disk, state: 'kept' });
  }
}

/** How {@link discardUnfinished} works. */
export interface DiscardUnfinishedOptions extends CleanUpOptions, WaitOptions {}

/**
 * Gives up a backup that was cut short and could be gone on with: its snapshot on the host, and what it had moved. Tracking
 * that it turned on stays on (`disableChangedBlockTracking`). Does nothing where there is none. The next backup of the VM does
 * the same, if it does not go on with it.
 *
 * @returns what was removed, and what is left.
 * @throws BackupError `LEASE_HELD` where the VM is being backed up.
 */
export async function discardUnfinished(
  host: Host,
  repository: Repository,
  vmUuid: string,
  { signal, clock = systemClock, waitMs }: DiscardUnfinishedOptions = {},
): Promise<ReceiptItem[]> {
  await using _lease = await repository.acquireLease(vmUuid, { purpose: 'backup', waitMs, signal });
  const givenUp = { repositoryId: repository.id, exceptSnapshot: undefined };
  const leftovers = await findLeftovers(host, { vmUuid, clock, givenUp, signal });
  const results = await cleanUp(host, leftovers, { clock, signal });
  await forgetUnfinished(repository, vmUuid, { signal });
  return results.map(({ leftover: { kind, uuid, name }, removed: isGone, error }) => ({
    kind,
    uuid,
    name,
    state: isGone ? 'removed' : 'left',
    ...(error !== undefined && { error: String(error) }),
  }));
}

/** The same at the end of a run, which does not fail for it. */
export async function forgetAtEnd(
  repository: Repository,
  vmUuid: string,
  recorder: RunRecorder,
  { cleanUpMs = CLEAN_UP_MS }: Pick<RunBackupOptions, 'cleanUpMs'>,
): Promise<void> {
  try {
    await forgetUnfinished(repository, vmUuid, { signal: AbortSignal.timeout(cleanUpMs) });
  } catch (error) {
    recorder.warn('UNFINISHED_LEFT', `the record of a run that is over is left: ${String(error)}`);
  }
}

/** Removes what the repository has of a run that nobody will go on with. */
export async function forgetUnfinished(repository: Repository, vmUuid: string, options: CallOptions): Promise<void> {
  const found = await repository.inspectUnfinished(vmUuid, options);
  const disks = found?.disks.map(({ vdiUuid }) => vdiUuid) ?? [];
  await removeUnfinished(repository.store, vmUuid, disks, options);
}
