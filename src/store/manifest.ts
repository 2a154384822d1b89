import type { Decision, Warning } from '../core/index.ts';

export type { Decision, Warning };

/** Version of what lies in a repository. A reader refuses a newer major one; a newer minor one only adds fields. */
export const MANIFEST_FORMAT = {
  /** Changes where an older reader would read wrongly. */
  major: 1,
  /** Changes where fields are added. */
  minor: 0,
} as const;

/** Name and version of this library, as they stand in what it writes. */
export const WRITER = 'xen-backup-sdk 0.1.0';

/** `image`: one archive of the whole VM. `changed-blocks`: a file for each disk. */
export type Strategy = 'image' | 'changed-blocks';
/** `full`: needs no other point. `incr`: needs its base. */
export type PointType = 'full' | 'incr';
/** `quiesced`: the guest had got ready. `crash-consistent`: as if the power had been cut. */
export type Consistency = 'quiesced' | 'crash-consistent';

/** Names a restore point. */
export interface PointId {
  /** The VM that was backed up. */
  readonly vmUuid: string;
  /** `<UTC time to the millisecond>-<full|incr>-<random>`, for example `20261122t180512345z-full-9f3a1c`. */
  readonly point: string;
}

/** One file of the point. */
export interface ManifestFile {
  /** Relative to the VM's folder, with `/`. */
  readonly name: string;
  /** What is in it. */
  readonly role: 'disk' | 'digests' | 'metadata' | 'metadata-archive' | 'image';
  /** In bytes. */
  readonly length: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** The archive of a full by the image strategy. */
export interface ManifestImage {
  /** By the host. */
  readonly compression: 'none' | 'gzip' | 'zstd';
  /** Without compression, in bytes. */
  readonly plainLength: number;
}

/** `full`: needs no other layer. `delta`: needs the one below. `excluded`: not in the backup. */
export type DiskMode = 'full' | 'delta' | 'excluded';

/** One disk of the VM at the point. */
export interface ManifestDisk {
  /** The source VDI: the folder its layers lie in. */
  readonly vdiUuid: string;
  /** As people call it. */
  readonly name: string;
  /** `userdevice` of its VBD: `0`, `1` … */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** The storage that it lay on. */
  readonly srUuid: string;
  /** As people call it. */
  readonly srName: string;
  /** `ext`, `nfs`, `lvm` … */
  readonly srType: string;
  /** What the point has of it. */
  readonly mode: DiskMode;
  /** Why this mode: `first backup of this disk`, `the base snapshot is gone` … */
  readonly reason: string;
  /** How the data came: `xva` inside the point's image, `none` for an excluded disk. */
  readonly transport: 'raw' | 'vhd' | 'nbd' | 'xva' | 'none';
  /** Name of the layer's file, relative to the VM's folder; none for a disk that is excluded or inside the image. */
  readonly file?: string | undefined;
  /** What the file is; none for a disk without one. */
  readonly format?: 'vhd' | 'raw' | undefined;
  /**
   * The layer's own VHD uuid: what the next delta names as its parent. A disk inside the image has one, too: that of the
   * VHD `disks/<vdi>/<point>.vhd` which it becomes when it is taken out of the image.
   */
  readonly vhdUuid?: string | undefined;
  /** The layer's VHD timestamp, in seconds since 2000-01-01T00:00:00Z. */
  readonly vhdTimestamp?: number | undefined;
  /** The point that holds the layer below; none for a full. */
  readonly basePoint?: string | undefined;
  /** The snapshot of this disk that the point was read from. */
  readonly snapshotVdiUuid?: string | undefined;
  /**
   * Of the whole disk at the point, as `digestDisk` makes it; of a full by the changed-blocks strategy, and where it was
   * asked for.
   */
  readonly digest?: string | undefined;
  /** Bytes that crossed the network for it. */
  readonly bytesMoved: number;
  /** What CBT called changed, in bytes; only for deltas. */
  readonly changedBytes?: number | undefined;
  /** Did this run turn changed block tracking on for it? */
  readonly trackingEnabled?: boolean | undefined;
}

/** What a restore point is, at rest: `points/<point>.json`, written last. `docs/format.md` describes each field. */
export interface Manifest {
  /** See {@link MANIFEST_FORMAT}. */
  readonly format: {
    /** A reader refuses a newer one. */
    readonly major: number;
    /** A newer one only adds fields. */
    readonly minor: number;
  };
  /** Name and version of the library that wrote it. */
  readonly writer: string;
  /** Its own name. */
  readonly point: string;
  /** How it was made. */
  readonly strategy: Strategy;
  /** Does it need another point? */
  readonly type: PointType;
  /** ISO 8601, UTC: when the snapshot was taken. */
  readonly createdAt: string;
  /** The point this one builds on; none for a full. */
  readonly base?: string | undefined;
  /**
   * It is being made a full, in its place: a layer that the manifest calls a delta may be one that needs no other by now,
   * with another length and hash.
   */
  readonly merging?: true | undefined;
  /** It was an increment, as its name still says, and has been made a full. */
  readonly merged?:
    | {
        /** ISO 8601, UTC. */
        readonly at: string;
        /** The point that it built on. */
        readonly base: string;
      }
    | undefined;
  /** The VM, as it was at the point. */
  readonly vm: {
    /** Its uuid. */
    readonly uuid: string;
    /** As people call it. */
    readonly name: string;
    /** `Running`, `Halted`, `Suspended`, `Paused`. */
    readonly powerState: string;
  };
  /** The pool that it ran in. */
  readonly host: {
    /** Its uuid. */
    readonly poolUuid: string;
    /** Empty where nobody has named it. */
    readonly poolName: string;
    /** `XCP-ng`, `XenServer`, `Citrix Hypervisor` … */
    readonly productBrand: string;
    /** Of the coordinator. */
    readonly productVersion: string;
    /** Of its API, for example `2.21`. */
    readonly apiVersion: string;
  };
  /** How consistent the disks are. */
  readonly consistency: {
    /** What was asked for. */
    readonly requested: Consistency;
    /** What it is. */
    readonly achieved: Consistency;
    /** Why that is less. */
    readonly reason?: string | undefined;
  };
  /** The snapshot that the point was read from. */
  readonly snapshot: {
    /** Its uuid on the host. */
    readonly uuid: string;
    /** Was it left on the host as the base of the next incremental? */
    readonly kept: boolean;
  };
  /** Every disk of the VM, those that are left out, too. */
  readonly disks: readonly ManifestDisk[];
  /** Of a full by the image strategy, and only of that. */
  readonly image?: ManifestImage | undefined;
  /** Every file of the point but the manifest itself. */
  readonly files: readonly ManifestFile[];
  /** What the run decided, and why. */
  readonly decisions: readonly Decision[];
  /** What a person should know. */
  readonly warnings: readonly Warning[];
  /** vTPM contents or UEFI variables are among the files, which then have mode 0600. */
  readonly containsSecrets: boolean;
}
