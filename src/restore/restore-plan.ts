import type { Decision } from '../core/index.ts';
import type { PointId, Strategy } from '../store/index.ts';

/** What happens to one disk of the point. */
export interface RestoreDiskPlan {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  readonly name: string;
  /** `userdevice` of its VBD. */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** `restore`: with its data. `empty`: a new disk of zeros in its place. `skip`: the VM comes back without it. */
  readonly action: 'restore' | 'empty' | 'skip';
  readonly reason: string;
  /** Where it goes; none for a skipped disk. */
  readonly srUuid?: string | undefined;
  readonly srName?: string | undefined;
  /** `xva`: within the archive of the whole VM, then by the delta of the point. */
  readonly transport: 'vhd' | 'raw' | 'xva';
  readonly transportReason: string;
}

/** What happens to one network interface. */
export interface RestoreNicPlan {
  readonly device: string;
  /** The address at the point. */
  readonly mac: string;
  /** `keep`: the same address. `generate`: the host makes a new one. */
  readonly macPolicy: 'keep' | 'generate';
  readonly sourceNetworkUuid: string;
  readonly sourceNetworkName: string;
  /** None where no network was found: a conflict. */
  readonly networkUuid?: string | undefined;
  readonly networkName?: string | undefined;
  readonly reason: string;
}

/** Something that makes the restore impossible or wrong; a plan with conflicts is not run. */
export interface RestoreConflict {
  readonly code:
    | 'ARCHIVE_TOO_NEW'
    | 'DISK_UNKNOWN'
    | 'MAC_IN_USE'
    | 'NETWORK_UNKNOWN'
    | 'NOT_WITH_IMAGE'
    | 'NO_SR'
    | 'SR_UNKNOWN'
    | 'SR_TOO_SMALL'
    | 'VTPM_UNSUPPORTED';
  readonly subject: string;
  readonly message: string;
}

/** Plain data: what a restore would make, and what stands against it. */
export interface RestorePlan {
  readonly format: 1;
  /** ISO 8601, UTC. */
  readonly plannedAt: string;
  readonly repositoryId: string;
  readonly point: PointId;
  readonly strategy: Strategy;
  /** The VM that was backed up. */
  readonly vm: { readonly uuid: string; readonly name: string };
  /** `original`: its uuid, MACs and configuration. `new`: another VM beside it, with a new uuid and new MACs. */
  readonly identity: 'original' | 'new';
  readonly identityReason: string;
  /** The name the restored VM will bear. */
  readonly name: string;
  /** Does a virtual TPM come back with its contents? */
  readonly vtpm: 'restore' | 'omit';
  readonly disks: readonly RestoreDiskPlan[];
  readonly nics: readonly RestoreNicPlan[];
  readonly conflicts: readonly RestoreConflict[];
  readonly decisions: readonly Decision[];
}
