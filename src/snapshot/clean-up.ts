import { BackupError, type CallOptions, type Clock, systemClock } from '../core/index.ts';
import type { Host, VdiRecord, VmRecord } from '../host/index.ts';
import { readMigrationBlocks, unblockMigration } from './block-migration.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import {
  intentKey,
  isUnmarkedWork,
  mayBeAlive,
  type OwnerMark,
  readIntents,
  readOwnerMark,
  removeMark,
} from './ownership.ts';

/** Something of ours on the host that no living run needs. */
export interface Leftover {
  /** `intent`: a note on a VM. `block`: a VM may not migrate because of it. `disk`: a disk of ours that hangs on no VM. */
  readonly kind: 'snapshot' | 'disk' | 'intent' | 'block';
  /** The object's; of `intent` and `block` the VM's. */
  readonly uuid: string;
  /** The object's name. */
  readonly name: string;
  /** The run that made it. */
  readonly runId: string;
  /** ISO 8601, UTC: when its run began. */
  readonly at: string;
  /** How we know that it is ours. */
  readonly evidence: string;
}

/**
 * A leftover in a sentence.
 * @internal
 */
export function leftoverText({ kind, name, uuid }: Leftover): string {
  if (kind === 'block') return `the ban on migrating the VM ${name} (${uuid})`;
  if (kind === 'intent') return `the note of a run on the VM ${name} (${uuid})`;
  return `the ${kind} ${name} (${uuid})`;
}

export interface CleanUpOptions extends CallOptions {
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

export interface FindLeftoversOptions extends CleanUpOptions {
  /** Only what belongs to this VM, by uuid. @defaultValue the whole pool */
  readonly vmUuid?: string | undefined;
  /**
   * Runs of this repository that could be gone on with, but for the one that has this snapshot, will not be: what they left is
   * listed, too.
   * @internal
   */
  readonly givenUp?: { readonly repositoryId: string; readonly exceptSnapshot: string | undefined } | undefined;
}

/** What became of one leftover. */
export interface CleanUpResult {
  /** What was to go. */
  readonly leftover: Leftover;
  /** Is it gone? */
  readonly removed: boolean;
  /** Why not. */
  readonly error?: unknown;
}

/**
 * Finds what runs of this library that were killed left on the host. Nothing is changed. An object counts only if its
 * mark names its own uuid (and a VM only if it is a snapshot), or if a VM's intent, the snapshot's name and its
 * `snapshot_of` agree. Snapshots kept for the next incremental, those of runs that may be alive, and those of runs that
 * can be gone on with (`resumable`) are not listed.
 */
export async function findLeftovers(host: Host, options: FindLeftoversOptions = {}): Promise<Leftover[]> {
  const { vmUuid, clock = systemClock, signal } = options;
  const now = clock.now();
  signal?.throwIfAborted();
  const vms = await host.listRecords('VM');
  const snapshots = vms.filter((vm) => vm.is_a_snapshot);
  const leftovers: Leftover[] = [];
  for (const snapshot of snapshots) {
    const mark = abandonedMark(snapshot, options, now);
    if (mark !== undefined) leftovers.push(describe('snapshot', snapshot, mark, 'its mark names its own uuid'));
  }
  for (const vm of vms) {
    if (vm.is_a_snapshot || (vmUuid !== undefined && vm.uuid !== vmUuid)) continue;
    for (const block of readMigrationBlocks(vm)) {
      if (mayBeAlive(block, now)) continue;
      leftovers.push(describe('block', vm, block, 'the reason names this VM and the run'));
    }
    for (const intent of readIntents(vm)) {
      if (mayBeAlive(intent, now)) continue;
      for (const snapshot of snapshots.filter((one) => isUnmarkedWork(one, vm, intent.runId))) {
        leftovers.push(describe('snapshot', snapshot, intent, 'name and origin match the intent on the VM'));
      }
      leftovers.push(describe('intent', vm, intent, 'the intent names this VM'));
    }
  }
  signal?.throwIfAborted();
  const attached = new Set(vms.flatMap((vm) => vm.VBDs));
  for (const vdi of await host.listRecords('VDI')) {
    const mark = abandonedMark(vdi, options, now);
    if (mark === undefined || vdi.VBDs.some((vbd) => attached.has(vbd))) continue;
    leftovers.push(describe('disk', vdi, mark, 'its mark names its own uuid, and no VM has it'));
  }
  return leftovers;
}

/**
 * Removes what {@link findLeftovers} found, each after a second look; goes on after a failure and tells it. An intent
 * stays where a snapshot of its run does: it may be all that proves whose that is. What cannot be removed, or is no longer
 * what was found (`CLEAN_UP_INCOMPLETE`), is told and not thrown.
 */
export async function cleanUp(
  host: Host,
  leftovers: readonly Leftover[],
  options: CleanUpOptions = {},
): Promise<CleanUpResult[]> {
  const results: CleanUpResult[] = [];
  const intentsLast = [...leftovers].sort((a, b) => Number(a.kind === 'intent') - Number(b.kind === 'intent'));
  for (const leftover of intentsLast) {
    options.signal?.throwIfAborted();
    try {
      const left = results.find((result) => !result.removed && result.leftover.runId === leftover.runId);
      if (leftover.kind === 'intent' && left !== undefined) throw isLeft(leftover, `${left.leftover.uuid} is left`);
      await removeLeftover(host, leftover, options);
      results.push({ leftover, removed: true });
    } catch (error) {
      results.push({ leftover, removed: false, error });
    }
  }
  return results;
}

async function removeLeftover(host: Host, leftover: Leftover, options: CleanUpOptions): Promise<void> {
  const { kind, uuid, runId } = leftover;
  const found = await host.findRecord(kind === 'disk' ? 'VDI' : 'VM', uuid);
  if (found === undefined) return;
  if (kind === 'intent') {
    await removeMark(host, 'VM', found.ref, intentKey(runId));
    return;
  }
  if (kind === 'block') {
    await unblockMigration(host, found, runId);
    return;
  }
  const mark = readOwnerMark(found);
  const stillWork = mark?.runId === runId && mark.state === 'working';
  if ('virtual_size' in found) {
    if (!stillWork || (await hangsOnVm(host, found))) throw isLeft(leftover, 'it is no longer what was found');
    await destroyOne(host, 'VDI', found.ref, options);
    return;
  }
  const unmarked = mark === undefined && found.name_label === leftover.name;
  if (!found.is_a_snapshot || !(stillWork || unmarked)) throw isLeft(leftover, 'it is no longer what was found');
  await destroySnapshot(host, found.ref, options);
}

/** Does a VM have this disk, attached or not? What a VM has is its user's business. */
export async function hangsOnVm(host: Host, vdi: Pick<VdiRecord, 'VBDs'>): Promise<boolean> {
  for (const ref of vdi.VBDs) {
    const vbd = await host.findRecord('VBD', ref);
    if (vbd !== undefined && (await host.findRecord('VM', vbd.VM))?.is_control_domain === false) return true;
  }
  return false;
}

function isLeft(leftover: Leftover, why: string): BackupError {
  const message = `${leftoverText(leftover)} is left alone: ${why}`;
  return new BackupError('CLEAN_UP_INCOMPLETE', message, { facts: { ...leftover } });
}

/** The mark of an object that a run was working with that lives no more, and that nobody will go on with. */
function abandonedMark(
  record: VmRecord | VdiRecord,
  { vmUuid, givenUp }: FindLeftoversOptions,
  now: number,
): OwnerMark | undefined {
  const mark = readOwnerMark(record);
  if (mark?.state !== 'working' || mayBeAlive(mark, now)) return undefined;
  if (vmUuid !== undefined && mark.vmUuid !== vmUuid) return undefined;
  const { resume } = mark;
  if (resume === undefined || Date.parse(resume.until) <= now) return mark;
  const isGivenUp = resume.repositoryId === givenUp?.repositoryId && record.uuid !== givenUp.exceptSnapshot;
  return isGivenUp ? mark : undefined;
}

function describe(
  kind: Leftover['kind'],
  record: { readonly uuid: string; readonly name_label: string },
  mark: { readonly runId: string; readonly at: string },
  evidence: string,
): Leftover {
  return { kind, uuid: record.uuid, name: record.name_label, runId: mark.runId, at: mark.at, evidence };
}
