import type { Decision, Warning } from '../core/index.ts';

export type { Decision, Warning };

/** What a restore point is, at rest: `points/<point>.json`, written last. `docs/format.md` describes each field. */

export const MANIFEST_FORMAT = { major: 1, minor: 0 } as const;

/** Name and version of this library, as they stand in what it writes. */
export const WRITER = 'xen-backup-sdk 0.1.0';

export type Strategy = 'image' | 'changed-blocks';
/** `full`: needs no other point. `incr`: needs its base. */
export type PointType = 'full' | 'incr';
export type Consistency = 'quiesced' | 'crash-consistent';

/** Names a restore point. */
export interface PointId {
  readonly vmUuid: string;
  /** `<UTC time to the millisecond>-<full|incr>-<random>`, for example `20261122t180512345z-full-9f3a1c`. */
  readonly point: string;
}

/** One file of the point. */
export interface ManifestFile {
  /** Relative to the VM's folder, with `/`. */
  readonly name: string;
  readonly role: 'disk' | 'metadata' | 'metadata-archive' | 'image';
  /** In bytes. */
  readonly length: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** The archive of a full by the image strategy. */
export interface ManifestImage {
  readonly compression: 'none' | 'gzip' | 'zstd';
  /** Without compression, in bytes. */
  readonly plainLength: number;
}

export type DiskMode = 'full' | 'delta' | 'excluded';

export interface ManifestDisk {
  /** The source VDI: the folder its layers lie in. */
  readonly vdiUuid: string;
  readonly name: string;
  /** `userdevice` of its VBD: `0`, `1` … */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  readonly srUuid: string;
  readonly srName: string;
  readonly srType: string;
  readonly mode: DiskMode;
  /** Why this mode: `first backup of this disk`, `the base snapshot is gone` … */
  readonly reason: string;
  /** How the data came: `xva` inside the point's image, `none` for an excluded disk. */
  readonly transport: 'raw' | 'vhd' | 'nbd' | 'xva' | 'none';
  /** Name of the layer's file, relative to the VM's folder; none for a disk that is excluded or inside the image. */
  readonly file?: string | undefined;
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
  /** Bytes that crossed the network for it. */
  readonly bytesMoved: number;
  /** What CBT called changed, in bytes; only for deltas. */
  readonly changedBytes?: number | undefined;
  /** Did this run turn changed block tracking on for it? */
  readonly trackingEnabled?: boolean | undefined;
}

export interface Manifest {
  readonly format: { readonly major: number; readonly minor: number };
  /** Name and version of the library that wrote it. */
  readonly writer: string;
  readonly point: string;
  readonly strategy: Strategy;
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
  readonly merged?: { readonly at: string; readonly base: string } | undefined;
  readonly vm: { readonly uuid: string; readonly name: string; readonly powerState: string };
  readonly host: {
    readonly poolUuid: string;
    readonly poolName: string;
    readonly productBrand: string;
    readonly productVersion: string;
    readonly apiVersion: string;
  };
  readonly consistency: {
    readonly requested: Consistency;
    readonly achieved: Consistency;
    readonly reason?: string | undefined;
  };
  readonly snapshot: {
    readonly uuid: string;
    /** Was it left on the host as the base of the next incremental? */
    readonly kept: boolean;
  };
  readonly disks: readonly ManifestDisk[];
  /** Of a full by the image strategy, and only of that. */
  readonly image?: ManifestImage | undefined;
  readonly files: readonly ManifestFile[];
  readonly decisions: readonly Decision[];
  readonly warnings: readonly Warning[];
  /** vTPM contents or UEFI variables are among the files, which then have mode 0600. */
  readonly containsSecrets: boolean;
}
