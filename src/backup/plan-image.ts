import type { CallOptions } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { assertCanSnapshot } from '../snapshot/index.ts';
import type { Repository } from '../store/index.ts';
import type { BackupPlan, PointBase } from './backup-plan.ts';
import { decideImage } from './decide-image.ts';
import type { PlanBackupOptions } from './plan-backup.ts';
import {
  commonPlan,
  decisionsOf,
  diskConflicts,
  findBaseSnapshots,
  findLatest,
  unexpectedFulls,
  whyBroken,
} from './plan-parts.ts';

/** Plans a backup by the image strategy. See `planBackup`. */
export async function planImage(host: Host, repository: Repository, options: PlanBackupOptions): Promise<BackupPlan> {
  assertOptions(options);
  const { mode = 'auto', fullOnly = false } = options;
  const vm = await host.getVm(options.vm);
  assertCanSnapshot(vm, options);
  const disks = await host.listDisks(vm.ref);
  const base =
    mode === 'full' || fullOnly ? { missing: 'a full was asked for' } : await findFull(repository, vm.uuid, options);
  const plans = decideImage({
    disks,
    base,
    baseSnapshots: 'manifest' in base ? await findBaseSnapshots(host, base.manifest) : new Map(),
  });
  return {
    ...commonPlan(vm, repository, base, plans, options),
    strategy: 'image',
    mergeGap: 0,
    sampleUnchanged: 0,
    purgeSnapshotData: false,
    vtpm: 'include',
    compression: options.compression ?? 'none',
    conflicts: [...diskConflicts(disks, new Map()), ...(mode === 'incremental' ? unexpectedFulls(plans) : [])],
    decisions: plans.flatMap(decisionsOf),
  };
}

/** What an archive of the whole VM cannot do is not passed over in silence. */
function assertOptions(options: PlanBackupOptions): void {
  const { exclude = [], vtpm = 'include', transport = 'auto', mergeGap = 0 } = options;
  const { sampleUnchanged = 0, purgeSnapshotData = false } = options;
  const but = 'an archive has the whole VM: use the strategy changed-blocks';
  if (exclude.length > 0) throw new TypeError(`exclude: ${but}`);
  if (vtpm === 'omit') throw new TypeError(`vtpm: ${but}`);
  // The host compares with the data of the full's snapshot.
  if (purgeSnapshotData || sampleUnchanged !== 0) {
    throw new TypeError('purgeSnapshotData, sampleUnchanged: they are about changed block tracking');
  }
  if (options.resumable === true)
    throw new TypeError('resumable: an archive comes in one piece; not with the image strategy');
  if (transport !== 'auto' || mergeGap !== 0) throw new TypeError('transport, mergeGap: not with the image strategy');
}

/** The last full with all that is needed to build on it. */
async function findFull(repository: Repository, vmUuid: string, { signal }: CallOptions): Promise<PointBase> {
  const latest = await findLatest(repository, vmUuid, 'image', 'image', { signal });
  if ('missing' in latest) return latest;
  let full = latest.manifest;
  const why = await whyBroken(async () => {
    const [root] = await repository.chain({ vmUuid, point: full.point }, { signal });
    if (root !== undefined) full = root;
    await (await repository.openFile({ vmUuid, point: full.point }, 'image', { signal })).close();
  });
  if (why !== undefined) return { missing: why };
  return full.snapshot.kept ? { manifest: full } : { missing: `${full.point} kept no snapshot` };
}
