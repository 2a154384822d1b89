import type { CallOptions, Clock } from '../core/index.ts';
import type { ByteSource, Disk } from '../disk/index.ts';
import type { AcquireLeaseOptions, Lease, LeaseInfo, WaitOptions } from './lease.ts';
import type { Manifest, PointId, PointType, Strategy } from './manifest.ts';
import type { PointWriter } from './point-writer.ts';
import type { PlanPruneOptions, PruneOptions, PrunePlan, PruneReport } from './prune.ts';
import type { RetentionPolicy } from './retention.ts';
import type { Store } from './store.ts';
import type { UnfinishedRun } from './unfinished.ts';
import type { VerifyOptions, VerifyReport } from './verify-report.ts';

/** A restore point, as far as its name tells. */
export interface PointSummary extends PointId {
  /** As its name says; a merged increment is a `full` in its manifest only. */
  readonly type: PointType;
  /** ISO 8601, UTC: when the point was begun. */
  readonly createdAt: string;
}

export interface ListOptions extends CallOptions {
  /**
   * The uuid of one VM.
   * @defaultValue all VMs
   */
  readonly vm?: string | undefined;
}

export interface LatestOptions extends CallOptions {
  /**
   * Called for each newer point that cannot be read, which is then passed over.
   * @defaultValue such a point is an error: `POINT_BROKEN`
   */
  readonly onBroken?: ((error: unknown, id: PointId) => void) | undefined;
}

export interface RemoveOptions extends WaitOptions {
  /**
   * Removes the point even where others need it, where that cannot be known, or while another one writes: for a broken
   * repository.
   * @defaultValue `false`
   */
  readonly force?: boolean | undefined;
}

export interface BeginOptions extends WaitOptions {
  /**
   * A lease that the caller holds for more than this point, and gives back itself.
   * @defaultValue the point takes one, until it is committed or aborted
   */
  readonly lease?: Lease | undefined;
  /**
   * Gives the point its name.
   * @defaultValue the repository's clock
   */
  readonly clock?: Clock | undefined;
}

/**
 * The restore points in a store. A point exists from the moment its manifest does: whole or not at all. Closing the
 * store is up to whoever opened it.
 */
export interface Repository {
  /** A uuid, made with the repository. */
  readonly id: string;
  /** Where the points lie. */
  readonly store: Store;
  /** The points by time, from names alone: no manifest is read. The same time: by VM. */
  list(options?: ListOptions): Promise<PointSummary[]>;
  /**
   * The manifest of a point, checked field by field.
   *
   * @throws BackupError `NOT_FOUND`; `POINT_BROKEN`, naming file and field; `REPOSITORY_FORMAT_NEWER`.
   */
  get(id: PointId, options?: CallOptions): Promise<Manifest>;
  /** The newest point of a VM that one strategy made, `undefined` where there is none. */
  latest(vmUuid: string, strategy: Strategy, options?: LatestOptions): Promise<Manifest | undefined>;
  /**
   * A point with all it builds on through `base`, root first.
   *
   * @throws BackupError `POINT_BROKEN` where a base is missing or the bases go round in a circle.
   */
  chain(id: PointId, options?: CallOptions): Promise<Manifest[]>;
  /** The one layer that the point itself holds of a disk: in a delta, what did not change is `absent`. */
  openLayer(id: PointId, vdiUuid: string, options?: CallOptions): Promise<Disk>;
  /**
   * A disk as it was at the point: its layers, checked to fit one another and merged. Closing it closes them. The root may
   * lie inside an archive (XVA).
   *
   * @throws FormatError `XVA_COMPRESSED` where that archive is compressed; BackupError `NOT_FOUND` where the point holds
   * no such disk;
   * `POINT_BROKEN` where a layer is missing, is not as long as it was, or does not build on the one below it.
   */
  openDisk(id: PointId, vdiUuid: string, options?: CallOptions): Promise<Disk>;
  /**
   * The point's file of one role, checked to have the length it was written with.
   *
   * @throws BackupError `NOT_FOUND` where the point has none.
   */
  openFile(id: PointId, role: 'image' | 'metadata' | 'metadata-archive', options?: CallOptions): Promise<ByteSource>;
  /** The records in `<point>.metadata.json`, read whole, checked against their SHA-256. */
  readMetadata(id: PointId, options?: CallOptions): Promise<unknown>;
  /**
   * Removes a point: its manifest first, then its files, also those of a point that cannot be read.
   *
   * @throws BackupError `POINT_NEEDED` where another point builds on it, with these in `facts.neededBy`;
   * `POINT_BROKEN` where another point of the VM cannot be read, so that nobody knows; `LEASE_HELD`.
   */
  remove(id: PointId, options?: RemoveOptions): Promise<void>;
  /**
   * Takes the right to write the points of a VM, which one writer has at a time: `begin`, `remove`, `prune` and `copyPoint`
   * take it themselves. What ran out, or whose process on this machine is gone, is taken from its holder.
   *
   * @throws BackupError `LEASE_HELD` with `facts.holder`.
   */
  acquireLease(vmUuid: string, options?: AcquireLeaseOptions): Promise<Lease>;
  /** Who writes the points of a VM; `undefined` where nobody does. */
  inspectLease(vmUuid: string, options?: CallOptions): Promise<LeaseInfo | undefined>;
  /**
   * The backup of a VM that was cut short and that the next one can go on with (`resumable`); `undefined` where there is none.
   */
  inspectUnfinished(vmUuid: string, options?: CallOptions): Promise<UnfinishedRun | undefined>;
  /**
   * Begins a new point. It exists when `commit` has resolved; before that, `abort` removes all that was written.
   *
   * @throws BackupError `LEASE_HELD` where the VM has another writer.
   */
  begin(vmUuid: string, type: PointType, options?: BeginOptions): Promise<PointWriter>;
  /**
   * Decides which points a policy keeps and which expire, each with its reasons. Changes nothing.
   *
   * @throws TypeError for a policy without a rule; RangeError for one that cannot be.
   */
  planPrune(policy: RetentionPolicy, options?: PlanPruneOptions): Promise<PrunePlan>;
  /**
   * Merges and removes what the plan says, points that need others before these. A point that has come to be needed
   * since stays, as do those of a VM that another one writes, and the report says so. It can be cut short and repeated.
   *
   * @throws BackupError `PLAN_STALE` for the plan of another repository.
   */
  prune(plan: PrunePlan, options?: PruneOptions): Promise<PruneReport>;
  /** Checks one point with all it builds on, or every point. Damage is told in the report, not thrown. */
  verify(what: PointId | 'all', options?: VerifyOptions): Promise<VerifyReport>;
}
