import { BackupError, type CallOptions, type Clock, systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import { INTENT_KEY, isUnmarkedWork, mayBeAlive, readIntent, readOwnerMark, removeMark } from './ownership.ts';

/** Something of ours on the host that no living run needs. */
export interface Leftover {
  /** `intent`: a note on a VM. `disk`: a disk of ours that hangs on no VM. */
  readonly kind: 'snapshot' | 'disk' | 'intent';
  readonly uuid: string;
  readonly name: string;
  readonly runId: string;
  /** ISO 8601, UTC: when its run began. */
  readonly at: string;
  /** How we know that it is ours. */
  readonly evidence: string;
}

export interface FindLeftoversOptions extends CallOptions {
  /** Only what belongs to this VM, by uuid. @defaultValue the whole pool */
  readonly vmUuid?: string | undefined;
  readonly clock?: Clock | undefined;
}

/** What became of one leftover. */
export interface CleanUpResult {
  readonly leftover: Leftover;
  readonly removed: boolean;
  /** Why not. */
  readonly error?: unknown;
}

/**
 * Finds what runs of this library that were killed left on the host. Nothing is changed. An object counts only if its
 * mark names its own uuid (and a VM only if it is a snapshot), or if a VM's intent, the snapshot's name and its
 * `snapshot_of` agree. Snapshots kept for the next incremental, and those of runs that may be alive, are not listed.
 */
export async function findLeftovers(host: Host, options: FindLeftoversOptions = {}): Promise<Leftover[]> {
  const now = (options.clock ?? systemClock).now();
  const vms = await host.listRecords('VM');
  const snapshots = vms.filter((vm) => vm.is_a_snapshot);
  const leftovers: Leftover[] = [];
  for (const vm of vms) {
    if (options.vmUuid !== undefined && vm.uuid !== options.vmUuid) continue;
    leftovers.push(...markedSnapshots(vm, snapshots, now));
    const intent = vm.is_a_snapshot ? undefined : readIntent(vm);
    if (intent === undefined || mayBeAlive(intent, now)) continue;
    for (const snapshot of snapshots) {
      if (!isUnmarkedWork(snapshot, vm, intent) || readOwnerMark(snapshot) !== undefined) continue;
      leftovers.push(describe('snapshot', snapshot, intent, 'name and origin match the intent on the VM'));
    }
    leftovers.push(describe('intent', vm, intent, 'the intent names this VM'));
  }
  leftovers.push(...(await looseDisks(host, vms, options.vmUuid, now)));
  return leftovers;
}

/** Removes what {@link findLeftovers} found, each after a second look; goes on after a failure and tells it. */
export async function cleanUp(
  host: Host,
  leftovers: readonly Leftover[],
  options: CallOptions & { readonly clock?: Clock | undefined } = {},
): Promise<CleanUpResult[]> {
  const results: CleanUpResult[] = [];
  for (const leftover of leftovers) {
    options.signal?.throwIfAborted();
    try {
      await removeLeftover(host, leftover, options);
      results.push({ leftover, removed: true });
    } catch (error) {
      results.push({ leftover, removed: false, error });
    }
  }
  return results;
}

async function removeLeftover(
  host: Host,
  leftover: Leftover,
  options: CallOptions & { readonly clock?: Clock | undefined },
): Promise<void> {
  if (leftover.kind === 'disk') {
    const vdi = await host.findRecord('VDI', leftover.uuid);
    if (vdi === undefined) return;
    if (readOwnerMark(vdi)?.runId !== leftover.runId) throw changed(leftover);
    await destroyOne(host, 'VDI', vdi.ref, options);
    return;
  }
  const vm = await host.findRecord('VM', leftover.uuid);
  if (vm === undefined) return;
  if (leftover.kind === 'intent') {
    if (readIntent(vm)?.runId === leftover.runId) await removeMark(host, 'VM', vm.ref, INTENT_KEY);
    return;
  }
  const mark = readOwnerMark(vm);
  const stillWork = mark?.runId === leftover.runId && mark.state === 'working';
  if (!vm.is_a_snapshot || !(stillWork || (mark === undefined && vm.name_label === leftover.name)))
    throw changed(leftover);
  await destroySnapshot(host, vm.ref, options);
}

function changed(leftover: Leftover): BackupError {
  return new BackupError(
    'CLEAN_UP_INCOMPLETE',
    `${leftover.kind} ${leftover.name} (${leftover.uuid}) is no longer what was found: it is left alone`,
    { facts: { ...leftover } },
  );
}

function markedSnapshots(vm: VmRecord, snapshots: readonly VmRecord[], now: number): Leftover[] {
  return snapshots
    .filter((snapshot) => snapshot.snapshot_of === vm.ref)
    .flatMap((snapshot) => {
      const mark = readOwnerMark(snapshot);
      if (mark === undefined || mark.state !== 'working' || mayBeAlive(mark, now)) return [];
      return [describe('snapshot', snapshot, mark, 'its mark names its own uuid')];
    });
}

/** Disks with a mark of their own that hang on no VM: of a snapshot or a restore that died half-way. */
async function looseDisks(
  host: Host,
  vms: readonly VmRecord[],
  vmUuid: string | undefined,
  now: number,
): Promise<Leftover[]> {
  const known = new Set(vms.flatMap((vm) => vm.VBDs));
  const vdis = await host.listRecords('VDI');
  const owner = vmUuid === undefined ? undefined : vms.find((vm) => vm.uuid === vmUuid);
  const sources = owner && new Set(vdis.filter((vdi) => vdi.VBDs.some((vbd) => owner.VBDs.includes(vbd))).map(refOf));
  return vdis.flatMap((vdi) => {
    const mark = readOwnerMark(vdi);
    if (mark === undefined || mark.state !== 'working' || mayBeAlive(mark, now)) return [];
    if (vdi.VBDs.some((vbd) => known.has(vbd))) return [];
    if (sources !== undefined && !sources.has(vdi.snapshot_of)) return [];
    return [describe('disk', vdi, mark, 'its mark names its own uuid, and no VM has it')];
  });
}

function refOf(record: { readonly ref: string }): string {
  return record.ref;
}

function describe(
  kind: Leftover['kind'],
  record: { readonly uuid: string; readonly name_label: string },
  mark: { readonly runId: string; readonly at: string },
  evidence: string,
): Leftover {
  return { kind, uuid: record.uuid, name: record.name_label, runId: mark.runId, at: mark.at, evidence };
}
