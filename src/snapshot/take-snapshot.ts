import { type CallOptions, type Clock, type HookReport, HostError, newRunId, systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { assertChainRoom } from './chain-depth.ts';
import { CLEAN_UP_MS, discardRun, removed } from './discard-run.ts';
import { assertHooks, betweenHooks, type SnapshotHooks } from './hooks.ts';
import { markSnapshot, type SnapshotDisk } from './mark-snapshot.ts';
import {
  type Intent,
  intentKey,
  type KeptFor,
  OWNER_KEY,
  type OwnerMark,
  type ResumeMark,
  type Runner,
  removeMark,
  replaceMark,
  startRun,
  workingName,
  writeMark,
} from './ownership.ts';
import { type QuiesceMode, quiesceOrNot, type SnapshotConsistency, type SnapshotObserver } from './quiesce.ts';
import { assertCanSnapshot } from './refusals.ts';

export interface TakeSnapshotOptions extends CallOptions {
  /**
   * Names the run in the marks on the host.
   * @defaultValue one made up; the snapshot's `mark` has it
   */
  readonly runId?: string | undefined;
  /**
   * Who does the work: see {@link startRun}. While the run lives, the snapshot is no leftover.
   * @defaultValue this process, and the run lives as long as it does, unless the call fails
   */
  readonly runner?: Runner | undefined;
  /**
   * Uuids of the VM's disks that are left out. A host that cannot leave disks out (before XenServer 8) snapshots all,
   * and the snapshots of these are removed at once.
   * @defaultValue none
   */
  readonly excludeVdis?: readonly string[] | undefined;
  /** The uuid of the VM that runs this program, which must not be snapshotted by itself. */
  readonly selfUuid?: string | undefined;
  /** @defaultValue `'never'` */
  readonly quiesce?: QuiesceMode | undefined;
  /**
   * With the memory of a VM that is not halted, which pauses for it: the snapshot can be reverted to as it ran. Where the
   * host or the VM cannot, a snapshot of the disks is taken, and the observer is told. Not together with `quiesce`.
   * @defaultValue `false`
   */
  readonly checkpoint?: boolean | undefined;
  /** @defaultValue none */
  readonly hooks?: SnapshotHooks | undefined;
  /** Is told of fallbacks, hooks and warnings: a `RunRecorder` is one. */
  readonly observer?: SnapshotObserver | undefined;
  /**
   * Should the run be cut short, a later one may go on with this snapshot: until then it is no leftover.
   * @internal
   */
  readonly resume?: ResumeMark | undefined;
  /**
   * When the run began, in milliseconds since 1970.
   * @defaultValue now
   */
  readonly now?: number | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/**
 * All of a run that {@link makeSnapshot} needs.
 *
 * @internal
 */
export type MakeSnapshotOptions = TakeSnapshotOptions & {
  readonly runId: string;
  readonly runner: Runner;
  readonly now: number;
};

/** A VM's snapshot on the host, marked as ours. */
export interface Snapshot {
  /** Of the snapshot. */
  readonly uuid: string;
  /** Its handle in this session. */
  readonly ref: string;
  /** Of the VM. */
  readonly vmUuid: string;
  /** Its handle in this session. */
  readonly vmRef: string;
  /** Those of the VM's disks that it holds. */
  readonly disks: readonly SnapshotDisk[];
  /** What we have written on it. */
  readonly mark: OwnerMark;
  /** What was asked for, and what it is. */
  readonly consistency: SnapshotConsistency;
  /** When the host was asked for it, in milliseconds since 1970. */
  readonly takenAt: number;
}

/**
 * Takes a snapshot of a VM, crash-consistent unless `quiesce` says otherwise, and marks it as ours. Before the call the
 * intent is written on the VM and the run's id goes into the snapshot's name, so that a run that is killed in between
 * leaves nothing that cannot be found. Each disk is consistent in itself; the host snapshots them one after another.
 *
 * A failure removes what the host has made until then, as far as it lets us; `findLeftovers` finds the rest.
 *
 * @throws BackupError `VM_NOT_SUPPORTED`, `CHAIN_TOO_LONG`, `HOOK_FAILED`, `QUIESCE_UNAVAILABLE`; HostError with the host's
 * own code; TypeError for `checkpoint` together with `quiesce`.
 */
export async function takeSnapshot(host: Host, vm: VmRecord, options: TakeSnapshotOptions = {}): Promise<Snapshot> {
  const { clock = systemClock, runId = newRunId(), now = clock.now() } = options;
  const run = options.runner === undefined ? startRun(runId) : { runner: options.runner, end: () => {} };
  try {
    return await makeSnapshot(host, vm, { ...options, runId, runner: run.runner, now });
  } catch (error) {
    // An abort may strike after the host has done the work: what is removed is found by the run's id.
    await removed(() => discardRun(host, vm.uuid, runId, { signal: AbortSignal.timeout(CLEAN_UP_MS) }));
    if (options.runId === undefined) run.end(); // a run that the caller has named may have more than this
    throw error;
  }
}

/**
 * As {@link takeSnapshot}, but a failure leaves everything to the caller's `discardRun`.
 *
 * @internal
 */
export async function makeSnapshot(host: Host, vm: VmRecord, options: MakeSnapshotOptions): Promise<Snapshot> {
  assertCanSnapshot(vm, options);
  const { runId, runner, signal, excludeVdis = [], quiesce = 'never', hooks = {} } = options;
  const { observer, clock = systemClock } = options;
  assertHooks(hooks);
  if (options.checkpoint === true && quiesce !== 'never') throw new TypeError('checkpoint: not together with quiesce');
  await assertChainRoom(host, vm, excludeVdis);
  const name = workingName(vm, runId);
  const at = new Date(options.now).toISOString();
  const key = intentKey(runId);
  const intent: Intent = { uuid: vm.uuid, runId, runner, at };
  await writeMark(host, 'VM', vm.ref, key, intent);
  const by = { vmUuid: vm.uuid, runId, runner, at, resume: options.resume };
  let takenAt = clock.now();
  const takePlain = () => {
    takenAt = clock.now();
    return options.checkpoint === true && vm.power_state !== 'Halted'
      ? checkpointOrNot(host, vm, name, options)
      : callSnapshot(host, vm, name, excludeVdis, signal);
  };
  const { ref, consistency } = await betweenHooks(hooks, hookSettings(vm, options), () => {
    takenAt = clock.now();
    return quiesceOrNot(host, vm, { mode: quiesce, name, by, observer, signal }, takePlain);
  });
  const { mark, disks } = await markSnapshot(host, ref, by, { excluded: new Set(excludeVdis), signal });
  await removeMark(host, 'VM', vm.ref, key);
  return { uuid: mark.uuid, ref, vmUuid: vm.uuid, vmRef: vm.ref, disks, mark, consistency, takenAt };
}

/**
 * Marks a snapshot as the base of the next incremental: from now on clean-up leaves it alone.
 *
 * @internal
 */
export async function keepSnapshot(host: Host, snapshot: Snapshot, keptFor: KeptFor, name: string): Promise<void> {
  const kept = { ...snapshot.mark, state: 'kept', keptFor } as const;
  for (const disk of snapshot.disks) {
    await replaceMark(host, 'VDI', disk.snapshotVdiRef, OWNER_KEY, { ...kept, uuid: disk.snapshotVdiUuid });
  }
  await replaceMark(host, 'VM', snapshot.ref, OWNER_KEY, kept);
  await host.call('VM.set_name_label', snapshot.ref, name);
}

function hookSettings(
  { uuid, name_label: name }: VmRecord,
  { runId, observer, signal, clock = systemClock }: MakeSnapshotOptions,
) {
  return {
    vm: { uuid, name },
    runId,
    clock,
    signal,
    onEnded: (report: HookReport) => observer?.hookEnded(report),
  };
}

/** Answers that say: not with memory. */
const NO_CHECKPOINT: ReadonlySet<string> = new Set([
  'FEATURE_RESTRICTED',
  'LICENCE_RESTRICTION',
  'VM_CHECKPOINT_SUSPEND_FAILED',
  'VM_HAS_PCI_ATTACHED',
  'VM_HAS_VGPU',
  'VM_IS_IMMOBILE',
  'VM_LACKS_FEATURE',
]);

/** It has all disks: those that are to be left out go afterwards. */
async function checkpointOrNot(
  host: Host,
  vm: VmRecord,
  name: string,
  { excludeVdis = [], observer, signal }: TakeSnapshotOptions,
): Promise<string> {
  try {
    return await host.callAsync<string>('VM.checkpoint', [vm.ref, name], { signal });
  } catch (error) {
    if (!(error instanceof HostError) || !NO_CHECKPOINT.has(error.xapiCode)) throw error;
    observer?.fallBack('vm', 'checkpoint', 'snapshot of the disks', error.message);
    return callSnapshot(host, vm, name, excludeVdis, signal);
  }
}

async function callSnapshot(
  host: Host,
  vm: VmRecord,
  name: string,
  excludeVdis: readonly string[],
  signal: AbortSignal | undefined,
): Promise<string> {
  const found = await Promise.all(excludeVdis.map((uuid) => host.findRecord('VDI', uuid)));
  const ignored = found.flatMap((vdi) => vdi?.ref ?? []); // one that is gone needs no leaving out
  if (ignored.length > 0) {
    try {
      return await host.callAsync<string>('VM.snapshot', [vm.ref, name, ignored], { signal });
    } catch (error) {
      // `ignore_vdis` came with xapi 21.4: older hosts count the arguments
      if (!(error instanceof HostError) || error.xapiCode !== 'MESSAGE_PARAMETER_COUNT_MISMATCH') throw error;
    }
  }
  return host.callAsync<string>('VM.snapshot', [vm.ref, name], { signal });
}
