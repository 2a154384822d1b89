import type { CallOptions, Clock } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { destroyOne, destroySnapshot } from './destroy-snapshot.ts';
import { type KeptFor, type OwnerMark, readOwnerMark } from './ownership.ts';

/**
 * Removes the snapshots that a repository keeps of a VM for one strategy's incrementals, all but that for `keepPoint`: the
 * bases of older points, and what a killed run kept for a point that was never committed.
 *
 * @returns the uuids of the snapshots removed.
 */
export async function removeKeptBases(
  host: Host,
  vm: Pick<VmRecord, 'ref' | 'VBDs'>,
  owner: Pick<KeptFor, 'repositoryId' | 'strategy'> & { readonly keepPoint: string | undefined },
  options: CallOptions & { readonly clock?: Clock | undefined } = {},
): Promise<string[]> {
  const stale = (mark: OwnerMark | undefined) =>
    mark?.state === 'kept' &&
    mark.keptFor?.repositoryId === owner.repositoryId &&
    mark.keptFor.strategy === owner.strategy &&
    mark.keptFor.point !== owner.keepPoint;
  const removed: string[] = [];
  for (const snapshot of await host.listRecords('VM')) {
    if (!snapshot.is_a_snapshot || snapshot.snapshot_of !== vm.ref || !stale(readOwnerMark(snapshot))) continue;
    await destroySnapshot(host, snapshot.ref, options);
    removed.push(snapshot.uuid);
  }
  // Disks whose snapshot VM is gone: a run was killed between `VM.destroy` and `VDI.destroy`.
  const sources = new Set((await host.listDisks(vm.ref)).map(({ vdi }) => vdi.ref));
  for (const vdi of await host.listRecords('VDI')) {
    if (!vdi.is_a_snapshot || !sources.has(vdi.snapshot_of) || !stale(readOwnerMark(vdi))) continue;
    await destroyOne(host, 'VDI', vdi.ref, options);
  }
  return removed;
}
