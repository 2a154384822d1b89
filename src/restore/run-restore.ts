import {
  BackupError,
  type CallOptions,
  type Clock,
  HostError,
  type ProgressOptions,
  RunRecorder,
  type RunReport,
  systemClock,
} from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { CLEAN_UP_MS, OWNER_KEY, RESTORED_FROM_KEY, removeMark, startRun, writeMark } from '../snapshot/index.ts';
import { parseVmMetadata, type Repository, type VmMetadata } from '../store/index.ts';
import { makeDrives, makeNics, makeVm } from './make-vm.ts';
import { decideTransport, findPresence, type PlanRestoreOptions, planRestore } from './plan-restore.ts';
import { restoreDisks } from './restore-disks.ts';
import { restoreImage } from './restore-image.ts';
import type { RestorePlan } from './restore-plan.ts';
import { RestoredObjects } from './restored-objects.ts';
import { verifyRestored } from './verify-restored.ts';

export interface RunRestoreOptions extends CallOptions, ProgressOptions {
  /**
   * Read every restored disk back from the host and compare it with the point, before the VM gets its name. A difference
   * ends the restore with `RESTORE_MISMATCH`, and what was made is removed.
   * @defaultValue `false`
   */
  readonly verify?: boolean | undefined;
  /**
   * Start the VM when all is done. One that does not start is a warning (`VM_NOT_STARTED`): it is restored all the same.
   * @defaultValue `false`
   */
  readonly start?: boolean | undefined;
  /**
   * How long clean-up may take after a failure or an abort, in milliseconds.
   * @defaultValue `120000`
   */
  readonly cleanUpMs?: number | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/** A finished restore. */
export interface RestoreResult {
  /** Of the restored VM. */
  readonly vmUuid: string;
  /** Its handle in this session. */
  readonly vmRef: string;
  /** As the plan says. */
  readonly identity: 'original' | 'new';
  /** The new disks: source disk's uuid to the new one's. */
  readonly disks: Readonly<Record<string, string>>;
  /** What the run did. */
  readonly report: RunReport;
}

/**
 * Runs a plan: makes the disks, streams each disk's merged chain into its own, makes the VM halted, and attaches them. Of
 * the image strategy: imports the archive of the full, halted, and applies each disk's delta.
 * On any failure or abort what was made is removed; the error's `receipt` says so.
 *
 * @throws RunError with the report of the run: `ABORTED`, `PLAN_CONFLICT`, `PLAN_STALE`, or the code of what failed.
 */
export async function runRestore(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  options: RunRestoreOptions = {},
): Promise<RestoreResult> {
  const { clock = systemClock, onProgress, signal } = options;
  const diskOrder = plan.disks.map(({ vdiUuid }) => vdiUuid);
  const recorder = new RunRecorder({ run: 'restore', vm: plan.vm, diskOrder, clock, onProgress });
  recorder.point = plan.point.point;
  for (const decision of plan.decisions) recorder.decide(decision);
  const run = startRun(recorder.runId);
  const { runId } = recorder;
  const vmUuid = plan.vm.uuid;
  const made = new RestoredObjects(host, { runId, runner: run.runner, at: new Date(clock.now()), vmUuid });
  try {
    checkPlan(repository, plan);
    await checkAbsent(host, plan);
    const metadata = await readMetadata(repository, plan, options);
    const makeParts = plan.strategy === 'image' ? makeFromImage : makeFromDisks;
    const { vmRef, disks } = await makeParts({ host, repository, plan, metadata, made, recorder, options });
    await makeDrives(host, vmRef, metadata, disks, recorder, { signal });
    await makeNics(host, vmRef, plan, metadata, { signal });
    if (options.verify === true) await proveRestored(host, repository, plan, made, recorder, options);
    recorder.stage('finish');
    signal?.throwIfAborted();
    const uuids = await made.releaseDisks(plan);
    const uuid = await finishVm(host, repository, plan, metadata, vmRef);
    recorder.receipt.push({ kind: 'vm', uuid, name: plan.name, state: 'kept' });
    if (options.start === true) await startVm(host, vmRef, recorder);
    return { vmUuid: uuid, vmRef, identity: plan.identity, disks: uuids, report: recorder.report('success') };
  } catch (error) {
    await undo(made, recorder, options);
    throw recorder.failure(error, signal);
  } finally {
    run.end();
  }
}

/** Reads the disks back. */
async function proveRestored(
  host: Host,
  repository: Repository,
  { point }: RestorePlan,
  made: RestoredObjects,
  recorder: RunRecorder,
  { signal, onProgress }: RunRestoreOptions,
): Promise<void> {
  recorder.stage('verify');
  const onRead = (diskId: string, movedBytes: number) =>
    onProgress?.({ kind: 'bytes-moved', run: 'restore', diskId, movedBytes });
  for (const disk of await verifyRestored(host, repository, { point, disks: made.diskUuids, signal, onRead })) {
    if (disk.equal) continue;
    const { vdiUuid, restoredUuid, firstDifference } = disk;
    const message = `disk ${vdiUuid}, restored as ${restoredUuid}, differs from the point at ${firstDifference}`;
    throw new BackupError('RESTORE_MISMATCH', message, { facts: { vdiUuid, firstDifference } });
  }
}

/** Not cut short by an abort: the VM is restored, and would be taken back. */
async function startVm(host: Host, vmRef: string, recorder: RunRecorder): Promise<void> {
  try {
    await host.callAsync('VM.start', [vmRef, false, false]);
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    recorder.warn('VM_NOT_STARTED', `the VM is restored, and does not start: ${error.message}`);
  }
}

interface Making {
  readonly host: Host;
  readonly repository: Repository;
  readonly plan: RestorePlan;
  readonly metadata: VmMetadata;
  readonly made: RestoredObjects;
  readonly recorder: RunRecorder;
  readonly options: RunRestoreOptions;
}

/** The VM, without drives, and the disks that it is to have: source disk's uuid to the new disk's reference. */
interface Parts {
  readonly vmRef: string;
  readonly disks: ReadonlyMap<string, string>;
}

/** The disks one by one, then the VM. */
async function makeFromDisks({ host, repository, plan, metadata, made, recorder, options }: Making): Promise<Parts> {
  const { signal } = options;
  recorder.stage('transfer');
  const disks = await restoreDisks(host, repository, plan, metadata, made, recorder, options);
  recorder.stage('vm');
  signal?.throwIfAborted();
  await checkAbsent(host, plan); // again: hours may have passed, and an import that keeps the uuid may replace a VM
  const vmRef = await makeVm(host, repository, plan, metadata, made.vmName(plan.name), recorder, { signal });
  await made.vm(vmRef);
  return { vmRef, disks };
}

/** The VM with most of its disks, then the others; or all by themselves, where the host is older than the archive. */
async function makeFromImage(making: Making): Promise<Parts> {
  const { host, repository, plan, metadata, made, recorder, options } = making;
  recorder.stage('transfer');
  const imported = await importOrNot(making);
  if (imported === undefined) return makeFromDisks({ ...making, plan: await withoutImage(host, plan) });
  const others = { ...plan, disks: plan.disks.filter(({ transport }) => transport !== 'xva') };
  const more = await restoreDisks(host, repository, others, metadata, made, recorder, options);
  return { vmRef: imported.vmRef, disks: new Map([...imported.disks, ...more]) };
}

async function importOrNot({ host, repository, plan, made, recorder, options }: Making): Promise<Parts | undefined> {
  try {
    return await restoreImage(host, repository, plan, made, recorder, options);
  } catch (error) {
    if (!(error instanceof HostError) || error.xapiCode !== 'IMPORT_INCOMPATIBLE_VERSION') throw error;
    // Told before any data flows.
    recorder.fallBack('vm', 'import of the archive', 'each disk by itself', error.message);
    return undefined;
  }
}

async function withoutImage(host: Host, plan: RestorePlan): Promise<RestorePlan> {
  const srs = await host.listRecords('SR');
  const disks = plan.disks.map((disk) => {
    if (disk.transport !== 'xva') return disk;
    const sr = srs.find(({ uuid }) => uuid === disk.srUuid);
    return { ...disk, ...decideTransport(disk, sr) };
  });
  return { ...plan, disks };
}

/**
 * Plans and runs a restore of one VM: {@link planRestore}, then {@link runRestore}.
 *
 * @throws what either throws.
 */
export async function restoreVm(
  host: Host,
  repository: Repository,
  options: PlanRestoreOptions & RunRestoreOptions,
): Promise<RestoreResult> {
  return runRestore(host, repository, await planRestore(host, repository, options), options);
}

/** Takes back what was made. What cannot be removed is in the receipt. */
async function undo(made: RestoredObjects, recorder: RunRecorder, options: RunRestoreOptions): Promise<void> {
  const { clock = systemClock, cleanUpMs = CLEAN_UP_MS } = options;
  recorder.receipt.push(...(await made.removeAll(AbortSignal.timeout(cleanUpMs), clock)));
}

function checkPlan(repository: Repository, plan: RestorePlan): void {
  if (plan.repositoryId !== repository.id) {
    throw new BackupError('PLAN_STALE', `the plan is for repository ${plan.repositoryId}, this is ${repository.id}`);
  }
  if (plan.conflicts.length === 0) return;
  const messages = plan.conflicts.map(({ message }) => message).join('; ');
  throw new BackupError('PLAN_CONFLICT', `the restore of ${plan.vm.name} has conflicts: ${messages}`, {
    facts: { conflicts: plan.conflicts },
  });
}

/** Proves that no VM is the original, where the plan is to make that. */
async function checkAbsent(host: Host, plan: RestorePlan): Promise<void> {
  if (plan.identity === 'new') return;
  const vms = (await host.listRecords('VM')).filter((vm) => !vm.is_a_snapshot && !vm.is_a_template);
  const presence = findPresence(plan.vm.uuid, await host.findRecord('VM', plan.vm.uuid), vms);
  if (presence === undefined) return;
  throw new BackupError('PLAN_STALE', `the plan would make the original VM, but ${presence}; plan again`, {
    retryable: true,
    facts: { vmUuid: plan.vm.uuid },
  });
}

async function readMetadata(repository: Repository, plan: RestorePlan, options: CallOptions): Promise<VmMetadata> {
  return parseVmMetadata(await repository.readMetadata(plan.point, options), `${plan.point.point}.metadata.json`);
}

/** Marks where the VM came from, gives it its name, and puts back what an import drops. */
async function finishVm(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  metadata: VmMetadata,
  vmRef: string,
): Promise<string> {
  const vm = await host.getRecord('VM', vmRef);
  const origin = { vmUuid: plan.vm.uuid, repositoryId: repository.id, point: plan.point.point };
  await writeMark(host, 'VM', vmRef, RESTORED_FROM_KEY, { uuid: vm.uuid, ...origin });
  if (vm.is_a_template) await host.call('VM.set_is_a_template', vmRef, false);
  await host.call('VM.set_name_label', vmRef, plan.name);
  await removeMark(host, 'VM', vmRef, OWNER_KEY);
  const blocked = metadata.VM['blocked_operations'];
  if (typeof blocked === 'object' && blocked !== null && Object.keys(blocked).length > 0) {
    // VM.create and imports drop it. The last step: a VM whose destruction is blocked could not be taken back.
    await host.call('VM.set_blocked_operations', vmRef, blocked);
  }
  return vm.uuid;
}
