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
  /** The point that holds the layer. */
  readonly point: string;
  /** The disk's snapshot on the host. */
  readonly snapshotVdiUuid: string;
}

/** The point that deltas may build on, or why there is none. */
export type PointBase = { readonly manifest: Manifest } | { readonly missing: string };

/** What happens to one disk of the VM. */
export interface DiskPlan {
  /** The disk. */
  readonly vdiUuid: string;
  /** As people call it. */
  readonly name: string;
  /** `userdevice` of its VBD. */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** The storage that it lies on. */
  readonly srUuid: string;
  /** As people call it. */
  readonly srName: string;
  /** `ext`, `nfs`, `lvm` … */
  readonly srType: string;
  /** `delta`: only what differs from its base. */
  readonly mode: 'full' | 'delta' | 'excluded';
  /** Why this mode. */
  readonly reason: string;
  /**
   * How a full of this disk travels: also what a delta falls back to. `xva`: inside the image of the whole VM.
   */
  readonly transport: 'raw' | 'vhd' | 'xva';
  /** Why a full would travel so. */
  readonly transportReason: string;
  /** What the layer is stored as; a VHD ends at 2040 GiB. */
  readonly format: 'vhd' | 'raw';
  /** Only for a delta. */
  readonly base?: DiskBase | undefined;
  /** Will the run turn changed block tracking on for it, before its snapshot? */
  readonly enableTracking: boolean;
  /** How much will move. */
  readonly expectedBytes: ByteEstimate;
}

/** Something that makes the run impossible or wrong; a plan with conflicts is not run. */
export interface PlanConflict {
  /** Stable; each is explained in `docs/errors.md`. */
  readonly code: string;
  /** What it is about: a uuid. */
  readonly subject: string;
  /** One sentence for people. */
  readonly message: string;
  /** Of `CBT_UNAVAILABLE`: `version` or `licence`. */
  readonly reason?: string | undefined;
}

/** A run that was cut short, and that this one goes on with. */
export interface ResumePlan {
  /** That wrote last what is there. */
  readonly runId: string;
  /** The snapshot that it left on the host. */
  readonly snapshotUuid: string;
  /** ISO 8601, UTC: the point will be of that moment. */
  readonly takenAt: string;
}

/** Plain data: what a run would do, and why. It can be stored, shown, approved, and run later by another process. */
export interface BackupPlan {
  /** Of this document. */
  readonly format: 1;
  /** How the point will be made. */
  readonly strategy: Strategy;
  /** ISO 8601, UTC. */
  readonly plannedAt: string;
  /** The VM, as it was when it was planned. */
  readonly vm: {
    /** Its uuid. */
    readonly uuid: string;
    /** As people call it. */
    readonly name: string;
    /** `Running`, `Halted`, `Suspended`, `Paused`. */
    readonly powerState: string;
  };
  /** The repository that the plan is for; no other runs it. */
  readonly repositoryId: string;
  /** `incr` as soon as one disk is a delta. */
  readonly type: 'full' | 'incr';
  /** The point that the deltas build on: the newest (changed-blocks), or the last full (image). */
  readonly basePoint?: string | undefined;
  /** Every disk of the VM, those that are left out, too. */
  readonly disks: readonly DiskPlan[];
  /** Of all disks together. */
  readonly expectedBytes: ByteEstimate;
  /** Stays this run's snapshot on the host, as the base of the next incremental? */
  readonly keepForIncremental: boolean;
  /**
   * How long this run, should it be cut short, leaves its snapshot on the host for a later one to go on with, in milliseconds;
   * `undefined`: it does not.
   */
  readonly resumeWithinMs?: number | undefined;
  /** What this run goes on with, instead of taking a snapshot: what that has moved is not moved again. */
  readonly resume?: ResumePlan | undefined;
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
  /** Is the digest of every disk recorded, also where that means to read it once more? */
  readonly digestDisks: boolean;
  /** `omit`: without the contents of virtual TPMs and UEFI variables. */
  readonly vtpm: 'include' | 'omit';
  /** What the host is asked to do with the image; of the image strategy only. */
  readonly compression?: 'none' | 'zstd' | undefined;
  /** Uuid of the network for NBD; any, if none is named. */
  readonly network?: string | undefined;
  /** Empty, or the plan is not run. */
  readonly conflicts: readonly PlanConflict[];
  /** Every choice with its reason. */
  readonly decisions: readonly Decision[];
}
