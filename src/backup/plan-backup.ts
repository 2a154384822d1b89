import type { CallOptions, Clock, Decision } from '../core/index.ts';
import type { Host, VmDisk } from '../host/index.ts';
import { assertCanSnapshot, type QuiesceMode } from '../snapshot/index.ts';
import type { Repository, Strategy } from '../store/index.ts';
import type { BackupPlan, DiskPlan, PlanConflict, PointBase } from './backup-plan.ts';
import { type DiskFacts, decideDisks } from './decide-disks.ts';
import { planImage } from './plan-image.ts';
import {
  commonPlan,
  decisionsOf,
  diskConflicts,
  findBaseSnapshots,
  findBrokenLayers,
  findLatest,
  unexpectedFulls,
  whyBroken,
} from './plan-parts.ts';
import { planResume } from './plan-resume.ts';

export interface PlanBackupOptions extends CallOptions {
  /** Uuid, or a name that only one VM has. */
  readonly vm: string;
  /**
   * `changed-blocks`: a file for each disk, increments by changed block tracking over NBD, each on the point before.
   * `image`: one archive (XVA) of the whole VM, increments by the host's own comparison of snapshots, each on the last full:
   * any host, no licence, no NBD.
   * @defaultValue `'changed-blocks'`
   */
  readonly strategy?: Strategy | undefined;
  /**
   * `auto`: deltas wherever they can be right, else fulls. `full`: a full of each disk. `incremental`: as `auto`, but a
   * disk that must be a full is a conflict.
   * @defaultValue `'auto'`
   */
  readonly mode?: 'auto' | 'full' | 'incremental' | undefined;
  /**
   * Of the image strategy: does the host compress the archive? It costs the host's time, and single disks of a compressed
   * archive cannot be opened. A host before 8.1 sends it plain, and the point says so.
   * @defaultValue `'none'`
   */
  readonly compression?: 'none' | 'zstd' | undefined;
  /**
   * Disks to leave out: a device (`'1'`), a VDI's uuid, or a predicate. Not with the image strategy: an archive has all.
   * @defaultValue none
   */
  readonly exclude?: readonly (string | ((disk: VmDisk) => boolean))[] | undefined;
  /**
   * Keep a snapshot on the host as the base of the next incremental (this run's; of the image strategy the full's); say
   * `false` where no incremental follows.
   * @defaultValue `true`
   */
  readonly keepForIncremental?: boolean | undefined;
  /**
   * Never use changed block tracking, and never turn it on: for hosts that have no licence for it, and VMs that must stay
   * movable between storages.
   * @defaultValue `false`
   */
  readonly fullOnly?: boolean | undefined;
  /**
   * How fulls travel. `auto` takes the sparse VHD export where it is safe.
   * @defaultValue `'auto'`
   */
  readonly transport?: 'auto' | 'raw' | 'vhd' | undefined;
  /**
   * What happens when a planned delta turns out to be impossible during the run.
   * @defaultValue `'full'`
   */
  readonly onFallback?: 'full' | 'fail' | undefined;
  /**
   * Unchanged runs of at most so many bytes between changes are read with them: fewer requests, more bytes.
   * @defaultValue `0`
   */
  readonly mergeGap?: number | undefined;
  /**
   * Is the host asked for a quiesced snapshot, where the guest has tools? `prefer` falls back to a crash-consistent one,
   * and the point says so; `require` fails instead. Hosts from release 8.1 on have none: use `hooks` there.
   * @defaultValue `'never'`
   */
  readonly quiesce?: QuiesceMode | undefined;
  /**
   * Truth check of tracking: so many blocks of 64 KiB of each delta that the host calls unchanged, chosen at random, are
   * read and compared with the last point. A difference makes the disk a full (or fails, see `onFallback`); the manifest
   * says how sure a passed check makes us.
   * @defaultValue `0`
   */
  readonly sampleUnchanged?: number | undefined;
  /**
   * Throw away the data of the kept snapshot once the point is durable; its change log stays for the next increment. It
   * frees storage at once, and shortens chains; nobody can revert to that snapshot. Not with the image strategy.
   * @defaultValue `false`
   */
  readonly purgeSnapshotData?: boolean | undefined;
  /**
   * Records the digest of every whole disk in the manifest. Without it only fulls of the changed-blocks strategy have one: it
   * costs them nothing, where others have to be read once more from the store, merged. Not of compressed images.
   * @defaultValue `false`
   */
  readonly digestDisks?: boolean | undefined;
  /**
   * Forbid the VM to migrate while the run lasts: its disks would move away under the backup. What its owner has forbidden
   * stays; after a kill `cleanUp`, or the next run, takes it back.
   * @defaultValue `true`
   */
  readonly blockMigration?: boolean | undefined;
  /**
   * `omit` leaves the contents of virtual TPMs and the UEFI variables out of the backup. Not with the image strategy.
   * @defaultValue `'include'`
   */
  readonly vtpm?: 'include' | 'omit' | undefined;
  /**
   * Should the run be cut short, by a failure, an abort or a kill, what it has moved is kept in the store and its snapshot on the
   * host, and the next backup of the VM with options that lead to the same plan goes on with it: increments and the rest of
   * fulls over NBD. Each layer is read once more before the point exists. Not with the image strategy.
   * @defaultValue `false`; `true` for a run that goes on with another
   */
  readonly resumable?: boolean | undefined;
  /**
   * For how long, in milliseconds: then the snapshot is a leftover. At most a week.
   * @defaultValue one day
   */
  readonly resumeWithinMs?: number | undefined;
  /**
   * Go on with a run that was cut short, where that can be right; `false` gives it up.
   * @defaultValue `true`
   */
  readonly resume?: boolean | undefined;
  /** The network that NBD is to use, by uuid or name. @defaultValue any the host offers */
  readonly network?: string | undefined;
  /** The uuid of the VM that runs this program: it cannot back up itself. */
  readonly selfUuid?: string | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/**
 * Finds out what a backup of one VM would do, disk by disk, and why. Changes nothing on the host or in the repository.
 *
 * @throws TypeError for options that do not go together; RangeError for numbers that cannot be; BackupError `VM_NOT_SUPPORTED` for templates, snapshots and
 * control domains; `NOT_FOUND` for an unknown VM.
 */
export async function planBackup(host: Host, repository: Repository, options: PlanBackupOptions): Promise<BackupPlan> {
  const { mode = 'auto', keepForIncremental = true, fullOnly = false, transport = 'auto' } = options;
  if (typeof options.vm !== 'string') throw new TypeError('vm: expected the uuid or name of a VM');
  if (options.strategy === 'image') return planImage(host, repository, options);
  if (options.compression !== undefined) throw new TypeError('compression: only the image strategy has an archive');
  const vm = await host.getVm(options.vm);
  assertCanSnapshot(vm, options);
  const disks = await host.listDisks(vm.ref);
  const base = await findBase(repository, vm.uuid, mode, options);
  const facts: DiskFacts = {
    disks,
    excluded: excludedDisks(disks, options.exclude ?? []),
    pool: host.facts,
    base,
    baseSnapshots: 'manifest' in base ? await findBaseSnapshots(host, base.manifest) : new Map(),
    brokenLayers: 'manifest' in base ? await findBrokenLayers(repository, base.manifest, options) : new Map(),
    nbdMissing: fullOnly ? undefined : await whyNoNbd(host, options.network),
    options: { fullOnly, keepForIncremental, transport },
  };
  const plans = decideDisks(facts);
  const plan: BackupPlan = {
    ...commonPlan(vm, repository, base, plans, options),
    strategy: 'changed-blocks',
    mergeGap: options.mergeGap ?? 0,
    sampleUnchanged: sampleSize(options.sampleUnchanged),
    purgeSnapshotData: options.purgeSnapshotData ?? false,
    vtpm: options.vtpm ?? 'include',
    network: options.network,
    conflicts: [...diskConflicts(disks, facts.excluded), ...(mode === 'incremental' ? noIncrements(host, plans) : [])],
    decisions: [...plans.flatMap(decisionsOf), ...(options.purgeSnapshotData === true ? [PURGE] : [])],
  };
  return planResume(host, repository, vm, plan, options);
}

const PURGE: Decision = {
  subject: 'vm',
  topic: 'purge',
  choice: 'throw the data of the kept snapshot away',
  reason: 'storage is freed at once and the change log stays; nobody can revert to that snapshot',
};

function sampleSize(count = 0): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new RangeError(`sampleUnchanged: expected a number of blocks, got ${count}`);
}

async function findBase(
  repository: Repository,
  vmUuid: string,
  mode: 'auto' | 'full' | 'incremental',
  { signal }: CallOptions,
): Promise<PointBase> {
  if (mode === 'full') return { missing: 'a full was asked for' };
  const latest = await findLatest(repository, vmUuid, 'changed-blocks', 'point', { signal });
  if ('missing' in latest) return latest;
  const { point, snapshot } = latest.manifest;
  if (!snapshot.kept) return { missing: `${point} kept no snapshot` };
  const why = await whyBroken(() => repository.chain({ vmUuid, point }, { signal }));
  return why === undefined ? latest : { missing: why };
}

async function whyNoNbd(host: Host, network: string | undefined): Promise<string | undefined> {
  const networks = await host.listNetworks();
  const offered = networks.filter(({ purposes }) => purposes.includes('nbd'));
  if (offered.length === 0) return 'no network of the pool has the purpose nbd';
  const usable = network === undefined ? offered : offered.filter(({ uuid, name }) => [uuid, name].includes(network));
  if (usable.length === 0) return `the network ${network} has not the purpose nbd`;
  if (usable.every(({ addresses }) => addresses.length === 0)) return 'no host has an address on a network for NBD';
  return undefined;
}

function excludedDisks(
  disks: readonly VmDisk[],
  exclude: NonNullable<PlanBackupOptions['exclude']>,
): ReadonlyMap<string, string> {
  const excluded = new Map<string, string>();
  for (const rule of exclude) {
    const chosen = disks.filter((disk) => (typeof rule === 'function' ? rule(disk) : isDisk(disk, rule)));
    const reason = typeof rule === 'function' ? 'excluded by a predicate' : `excluded as ${rule}`;
    for (const { vdi } of chosen) excluded.set(vdi.uuid, reason);
    if (chosen.length === 0 && typeof rule === 'string') {
      throw new RangeError(`exclude: no disk of the VM has the device or uuid ${rule}`);
    }
  }
  return excluded;
}

function isDisk({ vdi, vbd }: VmDisk, id: string): boolean {
  return vdi.uuid === id || vbd.userdevice === id;
}

/** Why an incremental cannot be had: what the whole pool lacks first, then each disk. */
function noIncrements({ facts }: Host, plans: readonly DiskPlan[]): PlanConflict[] {
  const { cbtMissing: reason, poolUuid, productBrand, productVersion } = facts;
  if (reason === undefined) return unexpectedFulls(plans);
  const release = `${productBrand} ${productVersion}`;
  const message =
    reason === 'version'
      ? `${release} has no changed block tracking: it came with XenServer 7.3`
      : `the licence of this ${release} does not allow changed block tracking`;
  return [{ code: 'CBT_UNAVAILABLE', subject: poolUuid, message, reason }, ...unexpectedFulls(plans)];
}
