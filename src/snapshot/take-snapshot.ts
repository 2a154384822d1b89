import { type CallOptions, HostError } from '../core/index.ts';
import { type Host, NULL_REF, type VmRecord } from '../host/index.ts';
import { CLEAN_UP_MS, discardRun, removed } from './discard-run.ts';
import {
  type Intent,
  intentKey,
  type KeptFor,
  OWNER_KEY,
  type OwnerMark,
  type Runner,
  removeMark,
  workingName,
  writeMark,
} from './ownership.ts';
import { assertCanSnapshot } from './refusals.ts';

export interface TakeSnapshotOptions extends CallOptions {
  /** Names the run in the marks on the host. */
  readonly runId: string;
  readonly runner: Runner;
  /**
   * Uuids of the VM's disks that are left out. A host that cannot leave disks out (before XenServer 8) snapshots all,
   * and the snapshots of these are removed at once.
   * @defaultValue none
   */
  readonly excludeVdis?: readonly string[] | undefined;
  /** The uuid of the VM that runs this program, which must not be snapshotted by itself. */
  readonly selfUuid?: string | undefined;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** A disk of a snapshot. */
export interface SnapshotDisk {
  /** The disk it is a snapshot of. */
  readonly vdiUuid: string;
  readonly snapshotVdiUuid: string;
  readonly snapshotVdiRef: string;
  /** In bytes. */
  readonly size: number;
  /** Was changed block tracking on when the snapshot was taken? */
  readonly tracked: boolean;
}

/** A VM's snapshot on the host, marked as ours. */
export interface Snapshot {
  readonly uuid: string;
  readonly ref: string;
  readonly vmUuid: string;
  readonly vmRef: string;
  readonly disks: readonly SnapshotDisk[];
  readonly mark: OwnerMark;
}

/**
 * Takes a crash-consistent snapshot of a VM and marks it as ours. Before the call the intent is written on the VM and
 * the run's id goes into the snapshot's name, so that a run that is killed in between leaves nothing that cannot be
 * found. Each disk is consistent in itself; the host snapshots them one after another.
 *
 * A failure removes what the host has made until then, as far as it lets us; `findLeftovers` finds the rest.
 */
export async function takeSnapshot(host: Host, vm: VmRecord, options: TakeSnapshotOptions): Promise<Snapshot> {
  try {
    return await makeSnapshot(host, vm, options);
  } catch (error) {
    // An abort may strike after the host has done the work: what is removed is found by the run's id.
    await removed(() => discardRun(host, vm.uuid, options.runId, { signal: AbortSignal.timeout(CLEAN_UP_MS) }));
    throw error;
  }
}

/** As {@link takeSnapshot}, but a failure leaves everything to the caller's `discardRun`. */
export async function makeSnapshot(host: Host, vm: VmRecord, options: TakeSnapshotOptions): Promise<Snapshot> {
  assertCanSnapshot(vm, options);
  const { runId, runner, signal, excludeVdis = [] } = options;
  const at = new Date(options.now).toISOString();
  const key = intentKey(runId);
  const intent: Intent = { uuid: vm.uuid, runId, runner, at };
  await writeMark(host, 'VM', vm.ref, key, intent);
  const ref = await callSnapshot(host, vm, workingName(vm, runId), excludeVdis, signal);
  const snapshot = await host.getRecord('VM', ref);
  const mark: OwnerMark = { uuid: snapshot.uuid, vmUuid: vm.uuid, runId, runner, at, state: 'working' };
  await writeMark(host, 'VM', ref, OWNER_KEY, mark);
  await removeMark(host, 'VM', ref, key); // it travelled into the snapshot
  const disks = await markDisks(host, ref, mark, new Set(excludeVdis), signal);
  await removeMark(host, 'VM', vm.ref, key);
  return { uuid: snapshot.uuid, ref, vmUuid: vm.uuid, vmRef: vm.ref, disks, mark };
}

/** Marks a snapshot as the base of the next incremental: from now on clean-up leaves it alone. */
export async function keepSnapshot(host: Host, snapshot: Snapshot, keptFor: KeptFor, name: string): Promise<void> {
  const kept = { ...snapshot.mark, state: 'kept', keptFor } as const;
  for (const disk of snapshot.disks) {
    await writeMark(host, 'VDI', disk.snapshotVdiRef, OWNER_KEY, { ...kept, uuid: disk.snapshotVdiUuid });
  }
  await writeMark(host, 'VM', snapshot.ref, OWNER_KEY, kept);
  await host.call('VM.set_name_label', snapshot.ref, name);
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

/** Marks the snapshot's disks, removes those that were to be left out, and tells which disk each is of. */
async function markDisks(
  host: Host,
  snapshotRef: string,
  mark: OwnerMark,
  excluded: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<SnapshotDisk[]> {
  const disks: SnapshotDisk[] = [];
  for (const { vdi } of await host.listDisks(snapshotRef)) {
    if (!vdi.is_a_snapshot || vdi.snapshot_of === NULL_REF) continue; // not made by the snapshot: leave it alone
    const source = await host.getRecord('VDI', vdi.snapshot_of);
    if (excluded.has(source.uuid)) {
      await host.callAsync('VDI.destroy', [vdi.ref], { signal });
      continue;
    }
    await writeMark(host, 'VDI', vdi.ref, OWNER_KEY, { ...mark, uuid: vdi.uuid });
    disks.push({
      vdiUuid: source.uuid,
      snapshotVdiUuid: vdi.uuid,
      snapshotVdiRef: vdi.ref,
      size: vdi.virtual_size,
      tracked: vdi.cbt_enabled === true,
    });
  }
  return disks;
}
