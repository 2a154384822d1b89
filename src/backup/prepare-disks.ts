import { queryChangedBlocks } from '../cbt/index.ts';
import { BackupError, type CallOptions, FormatError, HostError, type RunRecorder } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import type { Snapshot, SnapshotDisk } from '../snapshot/index.ts';
import type { Manifest } from '../store/index.ts';
import type { BackupPlan, DiskPlan } from './backup-plan.ts';
import type { DiskDelta, DiskJob } from './transfer-disk.ts';

/** Answers of the host that say: what changed since the base cannot be told. The disk needs a full. */
const NO_CHANGES_TOLD: ReadonlySet<string> = new Set([
  'HANDLE_INVALID', // the base was deleted
  'UUID_INVALID',
  'LICENCE_RESTRICTION',
  'MESSAGE_METHOD_UNKNOWN',
  'SR_BACKEND_FAILURE_459', // the logs do not fit one another
  'SR_BACKEND_FAILURE_460', // base and snapshot are not linked
  'SR_OPERATION_NOT_SUPPORTED',
  'VDI_INCOMPATIBLE_TYPE',
  'VDI_NO_CBT_METADATA',
]);

/**
 * Finds out for each included disk what there is to read, now that the snapshot exists: the base of a delta, with the
 * changed blocks where tracking tells them, or the reason why it becomes a full, which the plan must allow.
 *
 * @throws BackupError `PLAN_STALE` where the snapshot's disks are not those of the plan; `FALLBACK_REFUSED`.
 */
export async function prepareDisks(
  host: Host,
  plan: BackupPlan,
  snapshot: Snapshot,
  base: Manifest | undefined,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<DiskJob[]> {
  const jobs: DiskJob[] = [];
  for (const disk of plan.disks) {
    if (disk.mode === 'excluded') continue;
    const taken = snapshot.disks.find(({ vdiUuid }) => vdiUuid === disk.vdiUuid);
    if (taken === undefined) throw stale(plan, `${disk.name} (${disk.vdiUuid}) is not in the snapshot`);
    if (taken.size !== disk.size) {
      throw stale(plan, `${disk.name} (${disk.vdiUuid}) has ${taken.size} bytes, planned were ${disk.size}`);
    }
    jobs.push({
      plan: disk,
      snapshot: taken,
      delta: await prepareDelta(host, plan, disk, taken, base, recorder, options),
    });
  }
  const extra = snapshot.disks.find(({ vdiUuid }) => !jobs.some((job) => job.plan.vdiUuid === vdiUuid));
  if (extra !== undefined) throw stale(plan, `the disk ${extra.vdiUuid} was attached since`);
  return jobs;
}

async function prepareDelta(
  host: Host,
  plan: BackupPlan,
  disk: DiskPlan,
  taken: SnapshotDisk,
  base: Manifest | undefined,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<DiskDelta | undefined> {
  if (disk.mode !== 'delta' || disk.base === undefined) return undefined;
  const parent = base?.disks.find(({ vdiUuid }) => vdiUuid === disk.vdiUuid);
  if (base?.point !== disk.base.point || parent === undefined) {
    throw stale(plan, `the base ${disk.base.point} is no longer what the next increment builds on`);
  }
  if (plan.strategy === 'image') return { parent };
  try {
    if (!taken.tracked) throw new BackupError('CBT_UNAVAILABLE', 'changed block tracking went off before the snapshot');
    const changed = await queryChangedBlocks(host, disk.base.snapshotVdiUuid, taken.snapshotVdiUuid, options);
    if (changed.diskSize !== taken.size) {
      throw new BackupError(
        'CBT_UNAVAILABLE',
        `the changes are of ${changed.diskSize} bytes, the disk has ${taken.size}`,
      );
    }
    await assertNbdOffered(host, taken);
    return { changed, parent };
  } catch (error) {
    const reason = fallbackReason(error);
    if (reason === undefined) throw error;
    fallBackToFull(plan, disk, reason, error, recorder);
    return undefined;
  }
}

/**
 * A planned delta becomes a full, in report and ledger.
 *
 * @throws BackupError `FALLBACK_REFUSED` where the plan forbids it.
 */
export function fallBackToFull(
  { onFallback }: BackupPlan,
  { name, vdiUuid }: DiskPlan,
  reason: string,
  cause: unknown,
  recorder: RunRecorder,
): void {
  if (onFallback === 'fail') {
    const message = `${name} (${vdiUuid}) would need a full, which the plan forbids: ${reason}`;
    throw new BackupError('FALLBACK_REFUSED', message, { cause, facts: { vdiUuid, reason } });
  }
  recorder.fallBack(vdiUuid, 'delta', 'full', reason);
}

/** Why a delta cannot be, if the failure says so; `undefined` for a failure of another kind. */
function fallbackReason(error: unknown): string | undefined {
  if (error instanceof HostError) return NO_CHANGES_TOLD.has(error.xapiCode) ? error.message : undefined;
  if (error instanceof FormatError) return error.code.startsWith('CBT_') ? error.message : undefined;
  if (!(error instanceof BackupError)) return undefined;
  return error.code === 'CBT_UNAVAILABLE' || error.code === 'NBD_UNAVAILABLE' ? error.message : undefined;
}

async function assertNbdOffered(host: Host, { snapshotVdiRef }: SnapshotDisk): Promise<void> {
  const offers = await host.call<readonly unknown[]>('VDI.get_nbd_info', snapshotVdiRef);
  if (offers.length === 0) throw new BackupError('NBD_UNAVAILABLE', 'no host offers the snapshot over NBD');
}

function stale(plan: BackupPlan, why: string): BackupError {
  return new BackupError('PLAN_STALE', `the plan for ${plan.vm.name} no longer fits: ${why}; plan again`, {
    retryable: true,
    facts: { vmUuid: plan.vm.uuid, plannedAt: plan.plannedAt },
  });
}
