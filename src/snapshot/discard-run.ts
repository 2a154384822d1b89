import type { CallOptions, Clock, ReceiptItem } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import { bearsWorkingName, INTENT_KEY, readIntent, readOwnerMark, removeMark } from './ownership.ts';

/** How long clean-up may take after a failure or an abort, in milliseconds. */
export const CLEAN_UP_MS = 120_000;

/**
 * Removes what one run made for a VM: snapshots that bear its mark or its name, loose disks with its mark, its intent.
 * Goes on after a failure; what could not be removed is told as `left`.
 */
export async function discardRun(
  host: Host,
  vmUuid: string,
  runId: string,
  options: CallOptions & { readonly clock?: Clock | undefined } = {},
): Promise<ReceiptItem[]> {
  const receipt: ReceiptItem[] = [];
  const remove = async (kind: ReceiptItem['kind'], uuid: string, name: string, work: () => Promise<void>) => {
    try {
      await work();
      receipt.push({ kind, uuid, name, state: 'removed' });
    } catch (error) {
      receipt.push({ kind, uuid, name, state: 'left', error: error instanceof Error ? error.message : String(error) });
    }
  };
  const vm = await host.findRecord('VM', vmUuid);
  if (vm !== undefined) {
    for (const snapshot of await host.listRecords('VM')) {
      const ours = readOwnerMark(snapshot)?.runId === runId || bearsWorkingName(snapshot, runId);
      if (!snapshot.is_a_snapshot || snapshot.snapshot_of !== vm.ref || !ours) continue;
      await remove('snapshot', snapshot.uuid, snapshot.name_label, () => destroySnapshot(host, snapshot.ref, options));
    }
    if (readIntent(vm)?.runId === runId) {
      await remove('intent', vm.uuid, vm.name_label, () => removeMark(host, 'VM', vm.ref, INTENT_KEY));
    }
  }
  for (const vdi of await host.listRecords('VDI')) {
    if (readOwnerMark(vdi)?.runId !== runId || !vdi.is_a_snapshot) continue;
    await remove('disk', vdi.uuid, vdi.name_label, () => destroyOne(host, 'VDI', vdi.ref, options));
  }
  return receipt;
}
