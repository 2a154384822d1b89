import { type PoolFacts, storesVhds, type VdiRecord, type VmDisk } from '../host/index.ts';
import type { ManifestDisk } from '../store/index.ts';
import { MAX_VHD_SIZE, VHD_BLOCK_SIZE } from '../vhd/index.ts';
import type { ByteEstimate, DiskBase, DiskPlan, PointBase } from './backup-plan.ts';

/** What the decisions rest on: gathered before, so that deciding is a pure function. */
export interface DiskFacts {
  readonly disks: readonly VmDisk[];
  /** Uuid of an excluded disk to the reason. */
  readonly excluded: ReadonlyMap<string, string>;
  readonly pool: Pick<PoolFacts, 'cbtLicensed' | 'cbtMissing'>;
  /** The point that deltas may build on, or why there is none. */
  readonly base: PointBase;
  /** The base's snapshot of each disk, by the disk's uuid; `undefined` where the host has it no more. */
  readonly baseSnapshots: ReadonlyMap<string, VdiRecord | undefined>;
  /** Why the stored layers of a disk cannot be built on, by the disk's uuid. */
  readonly brokenLayers: ReadonlyMap<string, string>;
  /** Why changed blocks cannot be read over NBD, if so. */
  readonly nbdMissing?: string | undefined;
  readonly options: {
    readonly fullOnly: boolean;
    readonly keepForIncremental: boolean;
    readonly transport: 'auto' | 'raw' | 'vhd';
  };
}

/** Decides mode, transport and base of each disk, each with its reason. */
export function decideDisks(facts: DiskFacts): DiskPlan[] {
  return facts.disks.map((disk) => decideDisk(disk, facts));
}

/** What a plan says of a disk, whatever happens to it. */
export function describeDisk(disk: VmDisk, asked: 'auto' | 'raw' | 'vhd') {
  const { vdi, sr, vbd } = disk;
  const { transport, reason: transportReason } = decideTransport(disk, asked);
  return {
    vdiUuid: vdi.uuid,
    name: vdi.name_label,
    device: vbd.userdevice,
    size: vdi.virtual_size,
    srUuid: sr.uuid,
    srName: sr.name_label,
    srType: sr.type,
    transport,
    transportReason,
    format: vdi.virtual_size > MAX_VHD_SIZE ? 'raw' : 'vhd',
  } as const;
}

function decideDisk(disk: VmDisk, facts: DiskFacts): DiskPlan {
  const { vdi } = disk;
  const common = describeDisk(disk, facts.options.transport);
  const excluded = facts.excluded.get(vdi.uuid);
  if (excluded !== undefined) {
    const nothing = { value: 0, upperBound: 0, basis: 'excluded' };
    return { ...common, mode: 'excluded', reason: excluded, enableTracking: false, expectedBytes: nothing };
  }
  const enableTracking = wantsTracking(disk, facts);
  const base = deltaBase(disk, facts);
  if ('why' in base) {
    return {
      ...common,
      mode: 'full',
      reason: base.why,
      enableTracking,
      expectedBytes: fullBytes(disk, common.transport),
    };
  }
  return {
    ...common,
    mode: 'delta',
    reason: `changed blocks since ${base.point}`,
    base,
    enableTracking: false,
    expectedBytes: { upperBound: vdi.virtual_size, basis: 'the host tells what changed only after the snapshot' },
  };
}

/** The base of a delta, or why the disk must be a full. */
function deltaBase({ vdi }: VmDisk, facts: DiskFacts): DiskBase | { why: string } {
  if (facts.options.fullOnly) return { why: 'only fulls were asked for' };
  if ('missing' in facts.base) return { why: facts.base.missing };
  const { manifest } = facts.base;
  const layer = manifest.disks.find((disk) => disk.vdiUuid === vdi.uuid);
  if (layer === undefined) return { why: `the disk is not in ${manifest.point}: it came since` };
  if (layer.mode === 'excluded') return { why: `the disk was excluded from ${manifest.point}` };
  const refusal =
    layerRefusal(layer, vdi) ??
    facts.brokenLayers.get(vdi.uuid) ??
    trackingRefusal(vdi, facts) ??
    snapshotRefusal(layer, vdi, facts);
  if (refusal !== undefined) return { why: refusal };
  return { point: manifest.point, snapshotVdiUuid: layer.snapshotVdiUuid! };
}

/** Why the stored layer cannot be built on. */
function layerRefusal(layer: ManifestDisk, vdi: VdiRecord): string | undefined {
  if (layer.format !== 'vhd' || layer.vhdUuid === undefined) {
    return 'the disk is stored raw: increments of disks above 2040 GiB are not supported';
  }
  if (layer.snapshotVdiUuid === undefined) return 'the last point kept no snapshot';
  if (vdi.virtual_size < layer.size) return `the disk shrank from ${layer.size} to ${vdi.virtual_size} bytes`;
  if (vdi.virtual_size > MAX_VHD_SIZE) return 'the disk grew above 2040 GiB, where a VHD ends';
  return undefined;
}

function trackingRefusal(vdi: VdiRecord, { pool, nbdMissing }: DiskFacts): string | undefined {
  if (pool.cbtMissing === 'version') return 'changed block tracking needs XenServer 7.3 or XCP-ng';
  if (!pool.cbtLicensed) return 'changed block tracking is not licensed on this pool';
  if (vdi.cbt_enabled !== true) return 'changed block tracking is off';
  return nbdMissing;
}

function snapshotRefusal(layer: ManifestDisk, vdi: VdiRecord, { baseSnapshots }: DiskFacts): string | undefined {
  const snapshot = baseSnapshots.get(vdi.uuid);
  if (snapshot === undefined) return 'the base snapshot is gone';
  if (!snapshot.is_a_snapshot || snapshot.snapshot_of !== vdi.ref) return 'the base snapshot is of another disk';
  if (snapshot.cbt_enabled !== true) return 'the base snapshot has no changed block tracking';
  if (snapshot.type !== 'cbt_metadata' && snapshot.virtual_size !== layer.size) {
    return `the base snapshot has ${snapshot.virtual_size} bytes, its stored layer ${layer.size}`;
  }
  return undefined;
}

function wantsTracking({ vdi }: VmDisk, { pool, options }: DiskFacts): boolean {
  return (
    !options.fullOnly &&
    options.keepForIncremental &&
    pool.cbtLicensed &&
    vdi.cbt_enabled === false && // undefined: a host before 7.3, which does not know the call
    vdi.virtual_size <= MAX_VHD_SIZE
  );
}

/** A VHD export leaves out what was never written, but is right only where the storage is made of VHDs. */
export function decideTransport(
  { vdi, sr }: VmDisk,
  asked: 'auto' | 'raw' | 'vhd',
): { readonly transport: 'raw' | 'vhd'; readonly reason: string } {
  if (vdi.virtual_size > MAX_VHD_SIZE) return { transport: 'raw', reason: 'above 2040 GiB, where a VHD ends' };
  if (asked !== 'auto') return { transport: asked, reason: 'as asked for' };
  const image = vdi.sm_config['image-format'] ?? vdi.sm_config['type'] ?? 'vhd';
  if (!storesVhds(sr.type)) return { transport: 'raw', reason: `storage of type ${sr.type} may hold no VHDs` };
  if (image !== 'vhd') return { transport: 'raw', reason: `the disk is stored as ${image}` };
  if (vdi.virtual_size % VHD_BLOCK_SIZE !== 0) {
    return { transport: 'raw', reason: 'its size is no multiple of 2 MiB' };
  }
  return { transport: 'vhd', reason: 'stored as VHD: only allocated blocks travel' };
}

/** The bytes of a full. */
export function fullBytes({ vdi }: VmDisk, transport: 'raw' | 'vhd'): ByteEstimate {
  if (transport === 'raw') return { value: vdi.virtual_size, upperBound: vdi.virtual_size, basis: 'virtual size' };
  return { upperBound: vdi.virtual_size, basis: 'virtual size; blocks that were never written do not travel' };
}
