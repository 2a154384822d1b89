import type { Decision } from '../core/index.ts';
import type { QuiesceMode } from '../snapshot/index.ts';
import type { Manifest, Strategy } from '../store/index.ts';

/** How many bytes a step will move. */
export interface ByteEstimate {
  /** Exactly this many, where that can be known before the run. */
  readonly value?: number | undefined;
  /** Never more than this. */
  readonly upperBound: number;
  /** Where the figures come from, in words. */
  readonly basis: string;
}

/** The layer and snapshot that a delta builds on. */
export interface DiskBase {
  readonly point: string;
  readonly snapshotVdiUuid: string;
}

/** The point that deltas may build on, or why there is none. */
export type PointBase = { readonly manifest: Manifest } | { readonly missing: string };

export interface DiskPlan {
  readonly vdiUuid: string;
  readonly name: string;
  /** `userdevice` of its VBD. */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  readonly srUuid: string;
  readonly srName: string;
  readonly srType: string;
  readonly mode: 'full' | 'delta' | 'excluded';
  /** Why this mode. */
  readonly reason: string;
  /**
   * How a full of this disk travels: also what a delta falls back to. `xva`: inside the image of the whole VM.
   */
  readonly transport: 'raw' | 'vhd' | 'xva';
  readonly transportReason: string;
  /** What the layer is stored as; a VHD ends at 2040 GiB. */
  readonly format: 'vhd' | 'raw';
  /** Only for a delta. */
  readonly base?: DiskBase | undefined;
  /** Will the run turn changed block tracking on for it, before its snapshot? */
  readonly enableTracking: boolean;
  readonly expectedBytes: ByteEstimate;
}

/** Something that makes the run impossible or wrong; a plan with conflicts is not run. */
export interface PlanConflict {
  readonly code: string;
  readonly subject: string;
  readonly message: string;
  /** Of `CBT_UNAVAILABLE`: `version` or `licence`. */
  readonly reason?: string | undefined;
}

/** Plain data: what a run would do, and why. It can be stored, shown, approved, and run later by another process. */
export interface BackupPlan {
  readonly format: 1;
  readonly strategy: Strategy;
  /** ISO 8601, UTC. */
  readonly plannedAt: string;
  readonly vm: { readonly uuid: string; readonly name: string; readonly powerState: string };
  readonly repositoryId: string;
  /** `incr` as soon as one disk is a delta. */
  readonly type: 'full' | 'incr';
  /** The point that the deltas build on: the newest (changed-blocks), or the last full (image). */
  readonly basePoint?: string | undefined;
  readonly disks: readonly DiskPlan[];
  readonly expectedBytes: ByteEstimate;
  /** Stays this run's snapshot on the host, as the base of the next incremental? */
  readonly keepForIncremental: boolean;
  /** Is the guest asked to get ready for the snapshot? */
  readonly quiesce: QuiesceMode;
  /** May the VM not migrate while the run lasts? */
  readonly blockMigration: boolean;
  /** What happens when a planned delta turns out to be impossible. */
  readonly onFallback: 'full' | 'fail';
  /** Unchanged runs of at most so many bytes between changes are read with them. */
  readonly mergeGap: number;
  /** How many blocks of each delta that tracking calls unchanged are compared with the last point. */
  readonly sampleUnchanged: number;
  /** Is the data of the kept snapshot thrown away once the point is durable? */
  readonly purgeSnapshotData: boolean;
  readonly vtpm: 'include' | 'omit';
  /** What the host is asked to do with the image; of the image strategy only. */
  readonly compression?: 'none' | 'zstd' | undefined;
  /** Uuid of the network for NBD; any, if none is named. */
  readonly network?: string | undefined;
  readonly conflicts: readonly PlanConflict[];
  readonly decisions: readonly Decision[];
}
