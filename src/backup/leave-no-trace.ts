import { type CallOptions, HostError, type RunRecorder } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import {
  blockMigration,
  CLEAN_UP_MS,
  cleanUp,
  disableChangedBlockTracking,
  discardRun,
  enableChangedBlockTracking,
  findLeftovers,
  leftoverText,
  purgeSnapshotData,
  removed,
  removeKeptBases,
  type Snapshot,
  type TrackingResult,
  unblockMigration,
} from '../snapshot/index.ts';
import type { Manifest, PointWriter, Repository } from '../store/index.ts';
import type { BackupPlan } from './backup-plan.ts';
import type { RunBackupOptions } from './run-backup.ts';
import { forgetUnfinished, putAside } from './unfinished.ts';

/**
 * Removes what killed runs left of this VM, what could be gone on with and will not be, and snapshots that no point needs any
 * more.
 */
export async function tidyUp(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  { strategy, resume }: BackupPlan,
  recorder: RunRecorder,
  { signal, clock }: RunBackupOptions,
): Promise<void> {
  recorder.stage('tidy-up');
  // An archive's run has nothing to do with what the other strategy can go on with.
  const givenUp =
    strategy === 'image' ? undefined : { repositoryId: repository.id, exceptSnapshot: resume?.snapshotUuid };
  const leftovers = await findLeftovers(host, { vmUuid: vm.uuid, clock, givenUp, signal });
  for (const { leftover, removed, error } of await cleanUp(host, leftovers, { signal, clock })) {
    const what = `${leftoverText(leftover)}, left by a killed run`;
    if (removed) recorder.warn('LEFTOVER_REMOVED', `removed ${what}`);
    else recorder.warn('LEFTOVER_LEFT', `could not remove ${what}: ${String(error)}`);
  }
  if (strategy !== 'image' && resume === undefined) await forgetUnfinished(repository, vm.uuid, { signal });
  let broken = false;
  const latest = await repository.latest(vm.uuid, strategy, { signal, onBroken: () => (broken = true) });
  if (broken) return; // what a point that cannot be read needs, nobody knows
  await removeBases(host, repository, vm, strategy, latest && pointOfBase(latest), recorder, { signal, clock });
}

/** The point whose snapshot the next increment needs: the newest, or of the image strategy its full. */
export function pointOfBase({ strategy, base, point }: Manifest): string {
  return strategy === 'image' ? (base ?? point) : point;
}

/** Turns tracking on where the plan says so; a disk that the host refuses is a warning. */
export async function turnOnTracking(
  host: Host,
  plan: BackupPlan,
  recorder: RunRecorder,
  { signal }: CallOptions,
): Promise<void> {
  const wanted = plan.disks.filter((disk) => disk.enableTracking).map((disk) => disk.vdiUuid);
  if (wanted.length === 0) return;
  recorder.stage('tracking');
  for (const vdiUuid of wanted) {
    signal?.throwIfAborted();
    const isOn = (await host.getRecord('VDI', vdiUuid)).cbt_enabled === true;
    const { state, reason }: Turned = isOn ? { state: 'already' } : await turnOn(host, vdiUuid);
    if (state === 'already') continue; // by somebody else, since the plan
    if (state === 'refused') {
      recorder.decide({ subject: vdiUuid, topic: 'tracking', choice: 'refused', reason: String(reason) });
      recorder.warn('TRACKING_REFUSED', `changed block tracking of ${vdiUuid}: ${reason}`);
      continue;
    }
    const why = 'so that the next backup can be a delta; the disk cannot move to other storage until it is off';
    recorder.decide({ subject: vdiUuid, topic: 'tracking', choice: 'enabled', reason: why });
    if (state === 'unknown') throw reason; // only now: what may be on is taken back
  }
}

interface Turned {
  readonly state: TrackingResult['state'] | 'unknown';
  readonly reason?: unknown;
}

/** Not cut short by an abort: whether the host did it must be known, to be able to take it back. */
async function turnOn(host: Host, vdiUuid: string): Promise<Turned> {
  try {
    const [result] = await enableChangedBlockTracking(host, [vdiUuid]);
    return result ?? { state: 'already' };
  } catch (reason) {
    return { state: 'unknown', reason };
  }
}

/** Forbids migration while the run lasts; a host that does not let us is a warning. */
export async function holdStill(
  host: Host,
  vm: VmRecord,
  by: Parameters<typeof blockMigration>[2],
  recorder: RunRecorder,
): Promise<void> {
  try {
    await blockMigration(host, vm, by);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    recorder.warn('MIGRATION_NOT_BLOCKED', `the VM may migrate under the backup: ${error.message}`);
  }
}

/**
 * The point is durable: older bases go, all where no increment is to follow, and this run's snapshot, too, unless it is
 * the new base. Failures are warnings.
 */
export async function finish(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  plan: BackupPlan,
  snapshot: Snapshot,
  manifest: Manifest,
  recorder: RunRecorder,
  { clock, cleanUpMs = CLEAN_UP_MS }: RunBackupOptions,
): Promise<void> {
  recorder.stage('finish');
  const signal = AbortSignal.timeout(cleanUpMs); // an abort comes too late now: the point exists
  const { kept } = manifest.snapshot;
  recorder.receipt.push({ kind: 'point', uuid: manifest.point, name: manifest.point, state: 'kept' });
  if (kept) recorder.receipt.push({ kind: 'snapshot', uuid: snapshot.uuid, name: vm.name_label, state: 'kept' });
  try {
    await unblockMigration(host, vm, recorder.runId);
  } catch (error) {
    recorder.warn(
      'MIGRATION_STILL_BLOCKED',
      `the VM may not migrate until a later run takes that back: ${String(error)}`,
    );
  }
  try {
    if (!kept) recorder.receipt.push(...(await discardRun(host, vm.uuid, recorder.runId, { signal, clock })));
    else if (plan.purgeSnapshotData) await purge(host, snapshot, recorder, { signal, clock });
    const builtOn = plan.strategy === 'image' && plan.keepForIncremental ? manifest.base : undefined;
    const keepPoint = kept ? manifest.point : builtOn;
    await removeBases(host, repository, vm, manifest.strategy, keepPoint, recorder, { signal, clock });
  } catch (error) {
    recorder.warn('SNAPSHOT_LEFT', `a snapshot that is no longer needed could not be removed: ${String(error)}`);
  }
  for (const { kind, uuid, error } of recorder.receipt.filter(({ state }) => state === 'left')) {
    recorder.warn('SNAPSHOT_LEFT', `could not remove the ${kind} ${uuid}: ${error}`);
  }
}

async function purge(
  host: Host,
  snapshot: Snapshot,
  recorder: RunRecorder,
  options: Pick<RunBackupOptions, 'signal' | 'clock'>,
): Promise<void> {
  const warn = (what: string, error: unknown) =>
    recorder.warn('PURGE_FAILED', `the data of the snapshot ${what} stays: ${String(error)}`);
  try {
    for (const { snapshotVdiUuid, purged, error } of await purgeSnapshotData(host, snapshot, options)) {
      if (!purged) warn(snapshotVdiUuid, error);
    }
  } catch (error) {
    warn(snapshot.uuid, error);
  }
}

/**
 * Takes back everything: the half-written point, the snapshot, the marks, tracking that the run turned on. What cannot be
 * removed is in the receipt. Of a run that is to be gone on with only the half-written point goes.
 */
export async function undo(
  host: Host,
  repository: Repository,
  plan: BackupPlan,
  writer: PointWriter | undefined,
  recorder: RunRecorder,
  { clock, cleanUpMs = CLEAN_UP_MS, left, isLost }: UndoOptions,
): Promise<void> {
  const { receipt, runId, decisions } = recorder;
  const signal = AbortSignal.timeout(cleanUpMs);
  if (writer !== undefined) {
    const { point } = writer;
    receipt.push({ kind: 'point', uuid: point, name: point, ...(await removed(() => writer.abort())) });
  }
  if (left !== undefined) return putAside(host, repository, plan, left, recorder, { clock, signal, isLost });
  const discarded = await removed(async () => {
    receipt.push(...(await discardRun(host, plan.vm.uuid, runId, { signal, clock })));
  });
  if (discarded.state === 'left') {
    const error = `the host could not be asked: ${discarded.error}`;
    receipt.push({ kind: 'snapshot', uuid: runId, name: `run ${runId}`, state: 'left', error });
  }
  for (const { subject: uuid, topic, choice } of decisions) {
    if (topic !== 'tracking' || choice !== 'enabled') continue;
    const name = plan.disks.find(({ vdiUuid }) => vdiUuid === uuid)?.name ?? '';
    const turnOff = () => disableChangedBlockTracking(host, [uuid], { signal });
    receipt.push({ kind: 'tracking', uuid, name, ...(await removed(turnOff)) });
  }
}

interface UndoOptions extends RunBackupOptions {
  /** The snapshot of a run that a later one may go on with. */
  readonly left: Snapshot | undefined;
  /** Has another writer taken the lease? */
  readonly isLost: boolean;
}

/** Removes the bases of older points; one that the host does not give up is a warning, and the next run's work. */
async function removeBases(
  host: Host,
  repository: Repository,
  vm: VmRecord,
  strategy: Manifest['strategy'],
  keepPoint: string | undefined,
  recorder: RunRecorder,
  options: Pick<RunBackupOptions, 'signal' | 'clock'>,
): Promise<void> {
  const points = new Set((await repository.list({ vm: vm.uuid, signal: options.signal })).map(({ point }) => point));
  const owner = { repositoryId: repository.id, strategy, keepPoint, points };
  for (const { uuid, state, error } of await removeKeptBases(host, vm, owner, options)) {
    if (state === 'left') recorder.warn('SNAPSHOT_LEFT', `could not remove the old base ${uuid}: ${error}`);
  }
}
