import type { CallOptions } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import type { SnapshotDisk } from './mark-snapshot.ts';
import { OWNER_KEY, type OwnerMark, readOwnerMark, replaceMark } from './ownership.ts';
import type { Snapshot } from './take-snapshot.ts';

/**
 * A snapshot that a run which was cut short has left to be gone on with.
 *
 * @internal
 */
export type LeftSnapshot = Omit<Snapshot, 'consistency' | 'takenAt'>;

/**
 * Looks for a snapshot of a VM that a run left to be gone on with for this repository: `undefined` where it is gone, is no
 * such one any more, or where its time has run out. Changes nothing.
 *
 * @internal
 */
export async function findLeftSnapshot(
  host: Host,
  vm: Pick<VmRecord, 'ref' | 'uuid'>,
  { uuid, repositoryId, now }: { readonly uuid: string; readonly repositoryId: string; readonly now: number },
): Promise<LeftSnapshot | undefined> {
  const record = await host.findRecord('VM', uuid);
  if (record === undefined || !record.is_a_snapshot || record.snapshot_of !== vm.ref) return undefined;
  const mark = readOwnerMark(record);
  if (mark === undefined || !isLeft(mark, repositoryId, now)) return undefined;
  const disks: SnapshotDisk[] = [];
  for (const { vdi } of await host.listDisks(record.ref)) {
    const own = readOwnerMark(vdi);
    if (own === undefined || !isLeft(own, repositoryId, now)) continue;
    const source = await host.findRecord('VDI', vdi.snapshot_of);
    if (source === undefined) continue; // the disk is gone from the VM: who compares the disks sees it
    const { uuid: snapshotVdiUuid, ref: snapshotVdiRef, virtual_size: size } = vdi;
    disks.push({ vdiUuid: source.uuid, snapshotVdiUuid, snapshotVdiRef, size, tracked: vdi.cbt_enabled === true });
  }
  return { uuid, ref: record.ref, vmUuid: vm.uuid, vmRef: vm.ref, disks, mark };
}

function isLeft({ state, resume }: OwnerMark, repositoryId: string, now: number): boolean {
  return state === 'working' && resume?.repositoryId === repositoryId && Date.parse(resume.until) > now;
}

/**
 * Makes a snapshot this run's: from now on its marks name it.
 *
 * @internal
 */
export async function adoptSnapshot<T extends LeftSnapshot>(
  host: Host,
  snapshot: T,
  by: Omit<OwnerMark, 'uuid' | 'state' | 'keptFor'>,
  { signal }: CallOptions = {},
): Promise<T> {
  const mark: OwnerMark = { ...by, uuid: snapshot.uuid, state: 'working' };
  for (const { snapshotVdiRef, snapshotVdiUuid } of snapshot.disks) {
    signal?.throwIfAborted();
    await replaceMark(host, 'VDI', snapshotVdiRef, OWNER_KEY, { ...mark, uuid: snapshotVdiUuid });
  }
  await replaceMark(host, 'VM', snapshot.ref, OWNER_KEY, mark);
  return { ...snapshot, mark };
}
