import { systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { findLeftSnapshot } from '../snapshot/index.ts';
import type { Repository, UnfinishedRun } from '../store/index.ts';
import type { BackupPlan, DiskPlan } from './backup-plan.ts';
import type { PlanBackupOptions } from './plan-backup.ts';

const DAY_MS = 24 * 3600 * 1000;
/** A store leaves what was moved for a little longer. */
const LONGEST_MS = 7 * DAY_MS;

/**
 * Lets a plan go on with a run that was cut short, where the plan would do the same again and its snapshot is still there; if
 * not, the plan says why.
 *
 * @throws RangeError for a `resumeWithinMs` that cannot be.
 */
export async function planResume(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  plan: BackupPlan,
  options: PlanBackupOptions,
): Promise<BackupPlan> {
  const { resumable, resumeWithinMs = DAY_MS, resume = true, clock = systemClock } = options;
  if (!(resumeWithinMs > 0 && resumeWithinMs <= LONGEST_MS)) {
    throw new RangeError(`resumeWithinMs: expected more than 0 and at most ${LONGEST_MS}, got ${resumeWithinMs}`);
  }
  const found = await repository.inspectUnfinished(vm.uuid, options);
  const why = found && (resume ? await whyNot(host, repository, vm, plan, found, clock.now()) : 'it was not to be');
  const within = (goesOn: boolean) => ((resumable ?? goesOn) ? resumeWithinMs : undefined);
  const say = (choice: string, reason: string) => [
    ...plan.decisions,
    { subject: 'vm', topic: 'resume', choice, reason },
  ];
  if (found === undefined) return { ...plan, resumeWithinMs: within(false) };
  if (why !== undefined) {
    return { ...plan, resumeWithinMs: within(false), decisions: say('begin anew', `run ${found.runId}: ${why}`) };
  }
  const { runId, snapshot } = found;
  return {
    ...plan,
    // The snapshot is there: tracking would come too late for it.
    disks: plan.disks.map((disk) => ({ ...disk, enableTracking: false })),
    resume: { runId, snapshotUuid: snapshot.uuid, takenAt: snapshot.takenAt },
    resumeWithinMs: within(true),
    decisions: say('go on', `run ${runId} was cut short, and its snapshot is still there`),
  };
}

/** Why a plan cannot go on with a run. */
async function whyNot(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  plan: BackupPlan,
  { snapshot, disks: known, until }: UnfinishedRun,
  now: number,
): Promise<string | undefined> {
  if (Date.parse(until) <= now) return `its time ran out at ${until}`;
  if (plan.quiesce === 'require' && snapshot.consistency.achieved !== 'quiesced') return 'its snapshot is not quiesced';
  const left = await findLeftSnapshot(host, vm, { uuid: snapshot.uuid, repositoryId: repository.id, now });
  if (left === undefined) return 'its snapshot is gone, or has become a base';
  const latest = await repository.latest(vm.uuid, 'changed-blocks', { onBroken: () => {} });
  if (latest?.snapshot.uuid === snapshot.uuid) return 'its point exists';
  const included = plan.disks.filter(({ mode }) => mode !== 'excluded');
  if (included.length !== known.length || left.disks.length !== known.length) return 'the disks are not the same';
  for (const disk of included) {
    const before = known.find(({ vdiUuid }) => vdiUuid === disk.vdiUuid);
    const there = left.disks.find(({ vdiUuid }) => vdiUuid === disk.vdiUuid);
    if (before === undefined || there === undefined) return `it has not the disk ${disk.name} (${disk.vdiUuid})`;
    if (before.size !== disk.size || there.size !== disk.size) return `${disk.name} (${disk.vdiUuid}) has grown since`;
    if (!isSame(disk, before)) return `${disk.name} (${disk.vdiUuid}) was to be a ${before.mode}: ${disk.reason}`;
  }
  return undefined;
}

/** A full may have been a delta that fell back on the way: where a delta can be had now, all the better. */
function isSame({ mode, base }: DiskPlan, before: UnfinishedRun['disks'][number]): boolean {
  return before.mode === 'full' || (mode === 'delta' && base?.point === before.basePoint);
}
