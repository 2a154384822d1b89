import { type ReceiptItem, systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { readMigrationBlocks, unblockMigration } from './block-migration.ts';
import { type CleanUpOptions, hangsOnVm } from './clean-up.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import { intentKey, isUnmarkedWork, readIntents, readOwnerMark, removeMark } from './ownership.ts';

/**
 * How long clean-up may take after a failure or an abort, in milliseconds.
 *
 * @internal
 */
export const CLEAN_UP_MS = 120_000;

/** Operations of the host on a VM. */
const MAKES_SNAPSHOT: ReadonlySet<string> = new Set(['snapshot', 'snapshot_with_quiesce', 'checkpoint']);

/** Between two looks whether the host still makes a snapshot, in milliseconds. */
const LOOK_MS = 500;

/**
 * Removes what one run made for a VM: snapshots that bear its mark or its name, loose disks with its mark, its block of
 * migration, its intent.
 * Goes on after a failure; what could not be removed is told as `left`.
 *
 * @internal
 */
export async function discardRun(
  host: Host,
  vmUuid: string,
  runId: string,
  options: CleanUpOptions = {},
): Promise<ReceiptItem[]> {
  const receipt: ReceiptItem[] = [];
  const remove = async (kind: ReceiptItem['kind'], uuid: string, name: string, work: () => Promise<void>) => {
    receipt.push({ kind, uuid, name, ...(await removed(work)) });
  };
  const vm = await untilNoSnapshotIsMade(host, vmUuid, runId, options);
  for (const snapshot of await host.listRecords('VM')) {
    if (!snapshot.is_a_snapshot) continue;
    const unmarked = vm !== undefined && isUnmarkedWork(snapshot, vm, runId);
    if (!unmarked && readOwnerMark(snapshot)?.runId !== runId) continue;
    await remove('snapshot', snapshot.uuid, snapshot.name_label, () => destroySnapshot(host, snapshot.ref, options));
  }
  for (const vdi of await host.listRecords('VDI')) {
    if (readOwnerMark(vdi)?.runId !== runId || !vdi.is_a_snapshot || (await hangsOnVm(host, vdi))) continue;
    await remove('disk', vdi.uuid, vdi.name_label, () => destroyOne(host, 'VDI', vdi.ref, options));
  }
  if (vm !== undefined && readMigrationBlocks(vm).some((block) => block.runId === runId)) {
    await remove('block', vm.uuid, vm.name_label, () => unblockMigration(host, vm, runId));
  }
  const hasIntent = vm !== undefined && readIntents(vm).some((intent) => intent.runId === runId);
  // An intent may be all that proves whose a snapshot is: it goes last, and only after that.
  if (hasIntent && !receipt.some(({ state }) => state === 'left')) {
    await remove('intent', vm.uuid, vm.name_label, () => removeMark(host, 'VM', vm.ref, intentKey(runId)));
  }
  return receipt;
}

/**
 * What became of an object that `work` is to remove.
 *
 * @internal
 */
export async function removed(work: () => Promise<unknown>): Promise<Pick<ReceiptItem, 'state' | 'error'>> {
  try {
    await work();
    return { state: 'removed' };
  } catch (error) {
    return { state: 'left', error: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * The VM, once the host is done with a snapshot that it may still be making for us: an answer that was lost, or an abort
 * that came too late, leaves one that appears after we have looked.
 */
async function untilNoSnapshotIsMade(
  host: Host,
  vmUuid: string,
  runId: string,
  { signal, clock = systemClock }: CleanUpOptions,
): Promise<VmRecord | undefined> {
  for (;;) {
    signal?.throwIfAborted();
    const vm = await host.findRecord('VM', vmUuid);
    const awaited = vm !== undefined && readIntents(vm).some((intent) => intent.runId === runId);
    if (!awaited || !Object.values(vm.current_operations).some((name) => MAKES_SNAPSHOT.has(name))) return vm;
    await clock.sleep(LOOK_MS, { signal });
  }
}
