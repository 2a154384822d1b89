import type { CallOptions } from '../core/index.ts';
import { type Host, NULL_REF } from '../host/index.ts';
import { intentKey, OWNER_KEY, type OwnerMark, removeMark, writeMark } from './ownership.ts';

/** A disk of a snapshot. */
export interface SnapshotDisk {
  /** The disk it is a snapshot of. */
  readonly vdiUuid: string;
  /** Of the snapshot's disk. */
  readonly snapshotVdiUuid: string;
  /** Its handle in this session. */
  readonly snapshotVdiRef: string;
  /** In bytes. */
  readonly size: number;
  /** Was changed block tracking on when the snapshot was taken? */
  readonly tracked: boolean;
}

export interface MarkSnapshotOptions extends CallOptions {
  /** Disks, by uuid, whose snapshots are removed at once. */
  readonly excluded?: ReadonlySet<string> | undefined;
}

/** Marks a snapshot that the host has just made, and its disks, as ours. */
export async function markSnapshot(
  host: Host,
  ref: string,
  by: Omit<OwnerMark, 'uuid' | 'state'>,
  { excluded = new Set(), signal }: MarkSnapshotOptions = {},
): Promise<{ readonly mark: OwnerMark; readonly disks: readonly SnapshotDisk[] }> {
  const { uuid } = await host.getRecord('VM', ref);
  const mark: OwnerMark = { ...by, uuid, state: 'working' };
  await writeMark(host, 'VM', ref, OWNER_KEY, mark);
  await removeMark(host, 'VM', ref, intentKey(by.runId)); // it travelled into the snapshot
  return { mark, disks: await markDisks(host, ref, mark, excluded, signal) };
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
