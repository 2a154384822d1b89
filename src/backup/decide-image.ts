import { storesVhds, type VdiRecord, type VmDisk } from '../host/index.ts';
import type { ManifestDisk } from '../store/index.ts';
import type { DiskBase, DiskPlan, PointBase } from './backup-plan.ts';
import { decideTransport, describeDisk, fullBytes } from './decide-disks.ts';

/** What the decisions rest on. */
export interface ImageFacts {
  readonly disks: readonly VmDisk[];
  /** The full that deltas may build on, or why there is none. */
  readonly base: PointBase;
  /** The full's snapshot of each disk, by the disk's uuid; `undefined` where the host has it no more. */
  readonly baseSnapshots: ReadonlyMap<string, VdiRecord | undefined>;
}

/**
 * Decides for the image strategy: deltas against the last full where the host can tell the differences of at least one
 * disk, and the others as files of their own beside them; else all disks in one archive.
 */
export function decideImage(facts: ImageFacts): DiskPlan[] {
  const bases = facts.disks.map((disk) => deltaBase(disk, facts));
  const incremental = bases.some((base) => !('why' in base));
  return facts.disks.map((disk, index) => {
    const base = bases[index]!;
    const common = { ...describeDisk(disk, 'auto'), enableTracking: false };
    const { size } = common;
    if (!('why' in base)) {
      const expectedBytes = { upperBound: size, basis: 'the host finds the differences while it sends them' };
      return { ...common, mode: 'delta', reason: `differences from ${base.point}`, base, expectedBytes };
    }
    const full = { ...common, mode: 'full', reason: base.why } as const;
    if (incremental) return { ...full, expectedBytes: fullBytes(disk, common.transport) };
    const expectedBytes = { upperBound: size, basis: 'virtual size; zeros do not travel' };
    return { ...full, transport: 'xva', transportReason: 'an archive of the whole VM', expectedBytes };
  });
}

/** Can deltas ever build on a snapshot of this disk? */
export function tellsDifferences(disk: Pick<DiskPlan, 'srType' | 'format'>): boolean {
  return disk.format === 'vhd' && storesVhds(disk.srType);
}

/** The base of a delta, or why the disk must be a full. */
function deltaBase(disk: VmDisk, facts: ImageFacts): DiskBase | { readonly why: string } {
  if ('missing' in facts.base) return { why: facts.base.missing };
  const { manifest } = facts.base;
  const layer = manifest.disks.find(({ vdiUuid }) => vdiUuid === disk.vdi.uuid);
  if (layer === undefined) return { why: `the disk is not in ${manifest.point}: it came since` };
  const why = sizeRefusal(layer, disk) ?? storageRefusal(disk) ?? snapshotRefusal(layer, disk, facts);
  return why === undefined ? { point: manifest.point, snapshotVdiUuid: layer.snapshotVdiUuid! } : { why };
}

function sizeRefusal(layer: ManifestDisk, { vdi }: VmDisk): string | undefined {
  if (vdi.virtual_size >= layer.size) return undefined;
  return `the disk shrank from ${layer.size} to ${vdi.virtual_size} bytes`;
}

/** A host finds differences only between chains of VHDs. Source: xen-api `ocaml/xapi/vhd_tool_wrapper.ml` (`send`). */
function storageRefusal(disk: VmDisk): string | undefined {
  const { transport, reason } = decideTransport(disk, 'auto');
  return transport === 'vhd' ? undefined : `the host cannot tell its differences: ${reason}`;
}

function snapshotRefusal(layer: ManifestDisk, { vdi }: VmDisk, { baseSnapshots }: ImageFacts): string | undefined {
  const snapshot = baseSnapshots.get(vdi.uuid);
  if (snapshot === undefined) return 'the snapshot of the full is gone';
  if (!snapshot.is_a_snapshot || snapshot.snapshot_of !== vdi.ref) return 'the snapshot of the full is of another disk';
  if (snapshot.type === 'cbt_metadata') return 'the data of the full’s snapshot is gone';
  if (snapshot.virtual_size !== layer.size) {
    return `the snapshot of the full has ${snapshot.virtual_size} bytes, the point ${layer.size}`;
  }
  return undefined;
}
