import {
  anySignal,
  BackupError,
  type CallOptions,
  type Clock,
  type ProgressOptions,
  RunRecorder,
  type RunReport,
  runAll,
  systemClock,
} from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import {
  adoptSnapshot,
  assertCanSnapshot,
  keepSnapshot,
  makeSnapshot,
  type Runner,
  type Snapshot,
  type SnapshotHooks,
  startRun,
} from '../snapshot/index.ts';
import type {
  Lease,
  Manifest,
  ManifestDisk,
  PointId,
  PointWriter,
  Repository,
  UnfinishedRun,
  WaitOptions,
} from '../store/index.ts';
import type { BackupPlan } from './backup-plan.ts';
import { type CollectedMetadata, collectMetadata } from './collect-metadata.ts';
import { tellsDifferences } from './decide-image.ts';
import { finish, holdStill, pointOfBase, tidyUp, turnOnTracking, undo } from './leave-no-trace.ts';
import { manifestDisk } from './manifest-disk.ts';
import { type PlanBackupOptions, planBackup } from './plan-backup.ts';
import { fallBackToFull, prepareDisks } from './prepare-disks.ts';
import {
  type DiskDelta,
  type DiskJob,
  type StoredLayer,
  type TransferOptions,
  transferDisk,
  whyNoDelta,
} from './transfer-disk.ts';
import { type DraftedLayer, transferToDraft } from './transfer-draft.ts';
import { transferImage } from './transfer-image.ts';
import { findResumed, forgetAtEnd, isWorthResuming, type Resumed, recordUnfinished, resumeMark } from './unfinished.ts';

export interface RunBackupOptions extends WaitOptions, ProgressOptions {
  /** The uuid of the VM that runs this program: it cannot back up itself. */
  readonly selfUuid?: string | undefined;
  /** Functions or local commands to run right before and after the snapshot call. @defaultValue none */
  readonly hooks?: SnapshotHooks | undefined;
  /**
   * How long clean-up may take after a failure or an abort, in milliseconds.
   * @defaultValue `120000`
   */
  readonly cleanUpMs?: number | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
  /**
   * A lease of the VM that the caller holds, and gives back itself.
   * @defaultValue the run takes one, and gives it back at its end
   */
  readonly lease?: Lease | undefined;
}

/** A finished backup. */
export interface BackupResult {
  /** The restore point that exists now. */
  readonly point: PointId;
  /** What the repository has about it. */
  readonly manifest: Manifest;
  /** What the run did. */
  readonly report: RunReport;
}

/**
 * Runs a plan: snapshot, transfer, commit. The point exists only when this resolves, or not at all; on any failure or
 * abort the host is left as it was found, and the error's `receipt` says so.
 *
 * @throws RunError with the report of the run: `ABORTED`, `PLAN_CONFLICT`, `PLAN_STALE`, `FALLBACK_REFUSED`, `LEASE_HELD` where the VM
 * has another writer, `LEASE_LOST`, or the code
 * of what failed.
 */
export async function runBackup(
  host: Host,
  repository: Repository,
  plan: BackupPlan,
  given: RunBackupOptions = {},
): Promise<BackupResult> {
  const { clock = systemClock, onProgress, waitMs, signal: stop } = given;
  const { uuid, name } = plan.vm;
  const diskOrder = plan.disks.map(({ vdiUuid }) => vdiUuid);
  const recorder = new RunRecorder({ run: 'backup', vm: { uuid, name }, diskOrder, clock, onProgress });
  for (const decision of plan.decisions) recorder.decide(decision);
  const run = startRun(recorder.runId);
  let writer: PointWriter | undefined;
  let taken: Lease | undefined;
  /** What a later run can go on with, if this one fails. */
  let left: Snapshot | undefined;
  let unfinished: UnfinishedRun | undefined;
  try {
    const vm = await checkPlan(host, repository, plan, given);
    taken =
      given.lease ?? (await repository.acquireLease(uuid, { purpose: 'backup', waitMs, onProgress, signal: stop }));
    const lease = taken;
    const signal = anySignal(stop, lease.signal);
    const options = { ...given, signal };
    if (vm.power_state === 'Suspended') {
      const message = 'the VM is suspended: its memory is not in the backup, and a restore brings it back halted';
      recorder.warn('MEMORY_LEFT_OUT', message);
    }
    await tidyUp(host, repository, vm, plan, recorder, options);
    await turnOnTracking(host, plan, recorder, options);
    recorder.stage('snapshot');
    const started = { uuid, runId: recorder.runId, runner: run.runner, at: new Date(clock.now()).toISOString() };
    if (plan.blockMigration) await holdStill(host, vm, started, recorder);
    const resumed =
      plan.resume && (await findResumed(host, repository, vm, plan.resume, recorder, { now: clock.now(), signal }));
    unfinished = resumed?.unfinished;
    if (plan.resumeWithinMs !== undefined) left = resumed?.snapshot;
    const snapshot = await getSnapshot(host, repository, vm, plan, run.runner, resumed, recorder, options);
    const takenAt = new Date(snapshot.takenAt);
    const base = await findBase(repository, plan, { signal });
    const jobs = await prepareDisks(host, plan, snapshot, base, recorder, { signal });
    if (plan.resume !== undefined || plan.resumeWithinMs !== undefined) {
      unfinished = await recordUnfinished(repository, snapshot, jobs, unfinished, recorder, { signal });
    }
    if (plan.resumeWithinMs !== undefined) left = snapshot;
    const type = jobs.some((job) => job.delta !== undefined) ? 'incr' : 'full';
    writer = await repository.begin(uuid, type, { clock, lease, signal });
    recorder.point = writer.point;
    const metadata = await writeMetadata(host, writer, vm, plan, recorder, { signal });
    recorder.stage('transfer');
    const { disks, image } =
      plan.strategy === 'image' && type === 'full'
        ? await transferImage(host, writer, plan, snapshot, jobs, metadata, recorder, options)
        : {
            disks: await transferAll(host, repository, writer, jobs, { plan, takenAt, unfinished }, recorder, options),
            image: undefined,
          };
    recorder.stage('commit');
    const kept = plan.keepForIncremental && isBase(plan, type, snapshot);
    if (kept) await lease.assertHeld({ signal }); // who has gone on with this snapshot may have kept it for a point of theirs
    if (kept) await keepForNext(host, repository, plan, snapshot, writer.point);
    const manifest = await writer.commit(
      {
        strategy: plan.strategy,
        type,
        createdAt: takenAt.toISOString(),
        base: type === 'incr' ? plan.basePoint : undefined,
        vm: { uuid, name: vm.name_label, powerState: vm.power_state },
        host: poolOf(host),
        consistency: snapshot.consistency,
        snapshot: { uuid: snapshot.uuid, kept },
        disks: plan.disks.map((disk) => disks.get(disk.vdiUuid) ?? manifestDisk(disk)),
        image,
        decisions: recorder.decisions,
        warnings: recorder.warnings,
        containsSecrets: metadata.containsSecrets,
      },
      { digestDisks: plan.digestDisks, signal },
    );
    recorder.settle(); // the point exists, whatever comes
    if (unfinished !== undefined) await forgetAtEnd(repository, uuid, recorder, options);
    await finish(host, repository, vm, plan, snapshot, manifest, recorder, options);
    return { point: { vmUuid: uuid, point: manifest.point }, manifest, report: recorder.report('success') };
  } catch (error) {
    if (!isWorthResuming(error)) left = undefined;
    const isLost = taken?.signal.aborted === true;
    await undo(host, repository, plan, writer, recorder, { ...given, left, isLost });
    const isOver = unfinished !== undefined && left === undefined && !isLost;
    if (isOver) await forgetAtEnd(repository, uuid, recorder, given);
    throw recorder.failure(error, stop);
  } finally {
    if (given.lease === undefined) await taken?.release();
    run.end();
  }
}

/**
 * Plans and runs a backup of one VM: {@link planBackup}, then {@link runBackup}. With `waitMs` it plans when no other one
 * writes the VM any more.
 */
export async function backupVm(
  host: Host,
  repository: Repository,
  options: PlanBackupOptions & RunBackupOptions,
): Promise<BackupResult> {
  const plan = await planBackup(host, repository, options);
  const { waitMs, onProgress, signal } = options;
  if (waitMs === undefined || options.lease !== undefined) return runBackup(host, repository, plan, options);
  await using lease = await repository.acquireLease(plan.vm.uuid, { purpose: 'backup', waitMs, onProgress, signal });
  return await runBackup(host, repository, await planBackup(host, repository, options), { ...options, lease });
}

/** A new snapshot, or that of the run which is gone on with: from now on it is this run's. */
async function getSnapshot(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  plan: BackupPlan,
  runner: Runner,
  resumed: Resumed | undefined,
  recorder: RunRecorder,
  { selfUuid, hooks, clock = systemClock, signal }: RunBackupOptions,
): Promise<Snapshot> {
  const now = clock.now();
  const { runId } = recorder;
  const mark = { runId, runner, resume: resumeMark(repository, plan, now) };
  if (resumed !== undefined) {
    const by = { ...mark, vmUuid: vm.uuid, at: new Date(now).toISOString() };
    return adoptSnapshot(host, resumed.snapshot, by, { signal });
  }
  const excludeVdis = plan.disks.filter(({ mode }) => mode === 'excluded').map(({ vdiUuid }) => vdiUuid);
  const taking = { ...mark, now, excludeVdis, selfUuid, signal };
  const ways = { quiesce: plan.quiesce, hooks, observer: recorder, clock };
  return makeSnapshot(host, vm, { ...taking, ...ways });
}

/** What the deltas of the plan build on, if that is still what it was planned to be: see `prepareDisks`. */
async function findBase(
  repository: Repository,
  { basePoint, vm, strategy }: BackupPlan,
  { signal }: CallOptions,
): Promise<Manifest | undefined> {
  if (basePoint === undefined) return undefined;
  const latest = await repository.latest(vm.uuid, strategy, { signal });
  if (latest === undefined || pointOfBase(latest) === latest.point) return latest;
  return repository.get({ vmUuid: vm.uuid, point: pointOfBase(latest) }, { signal });
}

/** Can the next increment build on this snapshot? */
function isBase(plan: BackupPlan, type: Manifest['type'], snapshot: Snapshot): boolean {
  if (plan.strategy === 'image') return type === 'full' && plan.disks.some(tellsDifferences);
  return snapshot.disks.some((disk) => disk.tracked);
}

/** Looks whether the world is still as it was planned for. */
async function checkPlan(
  host: Host,
  repository: Repository,
  plan: BackupPlan,
  { selfUuid }: RunBackupOptions,
): Promise<VmRecord> {
  if (plan.repositoryId !== repository.id) {
    throw new BackupError('PLAN_STALE', `the plan is for repository ${plan.repositoryId}, this is ${repository.id}`);
  }
  if (plan.conflicts.length > 0) {
    const messages = plan.conflicts.map(({ message }) => message).join('; ');
    const missing = plan.conflicts.find(({ code }) => code === 'CBT_UNAVAILABLE');
    const code = missing === undefined ? 'PLAN_CONFLICT' : 'CBT_UNAVAILABLE';
    throw new BackupError(code, `the backup of ${plan.vm.name} has conflicts: ${messages}`, {
      facts: { conflicts: plan.conflicts, reason: missing?.reason },
    });
  }
  const vm = await host.getVm(plan.vm.uuid);
  assertCanSnapshot(vm, { selfUuid });
  return vm;
}

async function writeMetadata(
  host: Host,
  writer: PointWriter,
  vm: VmRecord,
  plan: BackupPlan,
  recorder: RunRecorder,
  { signal }: CallOptions,
): Promise<CollectedMetadata> {
  recorder.stage('metadata');
  const metadata = await collectMetadata(host, vm, { vtpm: plan.vtpm, signal });
  const text = new TextEncoder().encode(`${JSON.stringify(metadata.records, undefined, 2)}\n`);
  const writing = { secret: metadata.containsSecrets, signal };
  await writer.writeFile('metadata', writer.fileNames.metadata, text, writing);
  await writer.writeFile('metadata-archive', writer.fileNames.metadataArchive, metadata.archive, writing);
  return metadata;
}

interface Transfers {
  readonly plan: BackupPlan;
  readonly takenAt: Date;
  /** Of a run that can be gone on with. */
  readonly unfinished: UnfinishedRun | undefined;
}

/** Moves all disks, several at once within the host's limits; the first failure stops the others. */
async function transferAll(
  host: Host,
  repository: Repository,
  writer: PointWriter,
  jobs: readonly DiskJob[],
  { plan, takenAt: timestamp, unfinished }: Transfers,
  recorder: RunRecorder,
  { onProgress, signal, clock = systemClock }: RunBackupOptions,
): Promise<ReadonlyMap<string, ManifestDisk>> {
  const transferred = new Map<string, ManifestDisk>();
  /** Layers that are whole, and become files of the point when all are: until then a later run can go on with them. */
  const drafted: (() => Promise<void>)[] = [];
  const move = async (job: DiskJob, stop: AbortSignal) => {
    const startedAt = clock.now();
    const { vdiUuid: diskId, name: label, size } = job.plan;
    const mode = job.delta === undefined ? 'full' : 'delta';
    const totalBytes = job.delta && bytesToRead(job.delta, plan.mergeGap);
    onProgress?.({ kind: 'disk-started', run: 'backup', diskId, label, mode, size, totalBytes });
    const meter = recorder.meter();
    let resumed = 0;
    const options: TransferOptions = {
      timestamp,
      mergeGap: plan.mergeGap,
      network: plan.network,
      sampleUnchanged: plan.sampleUnchanged,
      openBase: ({ point }, disk) => repository.openDisk({ vmUuid: plan.vm.uuid, point }, disk, { signal: stop }),
      onTruth: (subject, { confidence: reason }) =>
        recorder.decide({ subject, topic: 'truth-check', choice: 'passed', reason }),
      onRetry: (cause, attempt, waitMs) => recorder.retry(diskId, cause, attempt, waitMs),
      signal: stop,
      meter,
      onMoved(movedBytes) {
        meter.bytes = movedBytes;
        const all = { movedBytes: resumed + movedBytes, totalBytes: totalBytes ?? size };
        onProgress?.({ kind: 'bytes-moved', run: 'backup', diskId, ...all });
      },
    };
    const draft = unfinished?.disks.find(({ vdiUuid }) => vdiUuid === diskId);
    const moving: Promise<StoredLayer | DraftedLayer> =
      draft === undefined || job.plan.format === 'raw'
        ? transferDisk(host, writer, job, options)
        : transferToDraft(host, repository.store, job, {
            ...options,
            vmUuid: plan.vm.uuid,
            vhdUuid: draft.vhdUuid,
            onResumed(movedBytes, offset, anew) {
              resumed = movedBytes;
              const choice = anew ? 'its export begins anew' : `from byte ${offset} on`;
              const reason = anew ? 'no host offers the disk over NBD' : 'what lies before was moved before';
              recorder.decide({ subject: diskId, topic: 'resume', choice, reason });
            },
          });
    const layer = await meter.untilDone(moving);
    const { bytes: bytesMoved, time } = meter;
    onProgress?.({ kind: 'disk-finished', run: 'backup', diskId, movedBytes: bytesMoved });
    const durationMs = clock.now() - startedAt;
    recorder.disks.push({
      vdiUuid: diskId,
      name: label,
      mode,
      transport: layer.transport,
      size,
      bytesMoved,
      durationMs,
      time,
    });
    const stored = (whole: StoredLayer) =>
      transferred.set(diskId, manifestDisk(job.plan, { job, layer: whole, bytesMoved, recorder }));
    if ('publish' in layer) drafted.push(async () => void stored(await layer.publish(writer, { signal, meter })));
    else stored(layer);
  };
  const moveOne = async (job: DiskJob, stop: AbortSignal) => {
    try {
      await move(job, stop);
    } catch (error) {
      const reason = whyNoDelta(error);
      if (job.delta === undefined || reason === undefined) throw error;
      fallBackToFull(plan, job.plan, reason, error, recorder);
      await move({ ...job, delta: undefined }, stop);
    }
  };
  await runAll(jobs, moveOne, { signal });
  for (const publish of drafted) await publish();
  return transferred;
}

function keepForNext(
  host: Host,
  repository: Repository,
  plan: BackupPlan,
  snapshot: Snapshot,
  point: string,
): Promise<void> {
  const keptFor = { repositoryId: repository.id, strategy: plan.strategy, point };
  return keepSnapshot(host, snapshot, keptFor, `${plan.vm.name} [xen-backup-sdk base of the next incremental]`);
}

/** Bytes of the changed runs, with the gaps that are read with them; unknown where the host looks for differences. */
function bytesToRead({ changed }: DiskDelta, mergeGap: number): number | undefined {
  if (changed === undefined) return undefined;
  let bytes = 0;
  for (const { length } of changed.extents({ mergeGap })) bytes += length;
  return bytes;
}

function poolOf({ facts }: Host): Manifest['host'] {
  const { poolUuid, poolName, productBrand, productVersion, apiVersion } = facts;
  return { poolUuid, poolName, productBrand, productVersion, apiVersion };
}
