import { type ReceiptItem, systemClock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { type CleanUpOptions, hangsOnVm } from './clean-up.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import { removed } from './discard-run.ts';
import { type KeptFor, mayBeAlive, type OwnerMark, readOwnerMark } from './ownership.ts';

/**
 * Which snapshots of a VM are to be looked at, and which of them is needed.
 *
 * @internal
 */
export interface BasesOwner extends Pick<KeptFor, 'repositoryId' | 'strategy'> {
  /** The point whose base stays; `undefined`: none. */
  readonly keepPoint: string | undefined;
  /** The points of the VM that exist: what is kept for another one belongs to a living run, or to nobody. */
  readonly points: ReadonlySet<string>;
}

/**
 * Removes the snapshots that a repository keeps of a VM for one strategy's incrementals, all but that for `keepPoint`: the
 * bases of older points, and what a killed run kept for a point that was never committed. Goes on after a failure; what
 * could not be removed is told as `left`.
 *
 * @internal
 */
export async function removeKeptBases(
  host: Host,
  vm: Pick<VmRecord, 'uuid'>,
  { repositoryId, strategy, keepPoint, points }: BasesOwner,
  options: CleanUpOptions = {},
): Promise<ReceiptItem[]> {
  const now = (options.clock ?? systemClock).now();
  const isStale = (mark: OwnerMark | undefined) => {
    if (mark?.state !== 'kept' || mark.vmUuid !== vm.uuid) return false;
    if (mark.keptFor?.repositoryId !== repositoryId || mark.keptFor.strategy !== strategy) return false;
    if (mark.keptFor.point === keepPoint) return false;
    return points.has(mark.keptFor.point) || !mayBeAlive(mark, now);
  };
  const receipt: ReceiptItem[] = [];
  const remove = async (kind: 'snapshot' | 'disk', uuid: string, name: string, work: () => Promise<void>) => {
    receipt.push({ kind, uuid, name, ...(await removed(work)) });
    options.signal?.throwIfAborted();
  };
  for (const snapshot of await host.listRecords('VM')) {
    if (!snapshot.is_a_snapshot || !isStale(readOwnerMark(snapshot))) continue;
    await remove('snapshot', snapshot.uuid, snapshot.name_label, () => destroySnapshot(host, snapshot.ref, options));
  }
  // Disks whose snapshot VM is gone: a run was killed between `VM.destroy` and `VDI.destroy`.
  for (const vdi of await host.listRecords('VDI')) {
    if (!vdi.is_a_snapshot || !isStale(readOwnerMark(vdi)) || (await hangsOnVm(host, vdi))) continue;
    await remove('disk', vdi.uuid, vdi.name_label, () => destroyOne(host, 'VDI', vdi.ref, options));
  }
  return receipt;
}
