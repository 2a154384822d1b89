import type { Decision } from '../core/index.ts';
import type { PointId, Strategy } from '../store/index.ts';

/** What happens to one disk of the point. */
export interface RestoreDiskPlan {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  /** As the source disk was called. */
  readonly name: string;
  /** `userdevice` of its VBD. */
  readonly device: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** `restore`: with its data. `empty`: a new disk of zeros in its place. `skip`: the VM comes back without it. */
  readonly action: 'restore' | 'empty' | 'skip';
  /** Why this action. */
  readonly reason: string;
  /** Where it goes; none for a skipped disk. */
  readonly srUuid?: string | undefined;
  /** As people call it. */
  readonly srName?: string | undefined;
  /** `xva`: within the archive of the whole VM, then by the delta of the point. */
  readonly transport: 'vhd' | 'raw' | 'xva';
  /** Why it travels so. */
  readonly transportReason: string;
}

/** What happens to one network interface. */
export interface RestoreNicPlan {
  /** The position: `0`, `1` … */
  readonly device: string;
  /** The address at the point. */
  readonly mac: string;
  /** `keep`: the same address. `generate`: the host makes a new one. */
  readonly macPolicy: 'keep' | 'generate';
  /** The network that it was on. */
  readonly sourceNetworkUuid: string;
  /** Empty where the point does not tell. */
  readonly sourceNetworkName: string;
  /** None where no network was found: a conflict. */
  readonly networkUuid?: string | undefined;
  /** As people call it. */
  readonly networkName?: string | undefined;
  /** Why this network, or that there is none. */
  readonly reason: string;
}

/** Something that makes the restore impossible or wrong; a plan with conflicts is not run. */
export interface RestoreConflict {
  /** Stable; each is explained in `docs/errors.md`. */
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
  /** What it is about: a uuid, a position, an option, a point. */
  readonly subject: string;
  /** One sentence for people. */
  readonly message: string;
}

/** Plain data: what a restore would make, and what stands against it. */
export interface RestorePlan {
  /** Of this document. */
  readonly format: 1;
  /** ISO 8601, UTC. */
  readonly plannedAt: string;
  /** The repository that the plan is for; no other runs it. */
  readonly repositoryId: string;
  /** What is restored. */
  readonly point: PointId;
  /** How the point was made. */
  readonly strategy: Strategy;
  /** The VM that was backed up. */
  readonly vm: {
    /** Its uuid at the point. */
    readonly uuid: string;
    /** Its name at the point. */
    readonly name: string;
  };
  /** `original`: its uuid, MACs and configuration. `new`: another VM beside it, with a new uuid and new MACs. */
  readonly identity: 'original' | 'new';
  /** Which VM stands in the way of the original, or that none does. */
  readonly identityReason: string;
  /** The name the restored VM will bear. */
  readonly name: string;
  /** Does a virtual TPM come back with its contents? */
  readonly vtpm: 'restore' | 'omit';
  /** Every disk of the point, those that are left out, too. */
  readonly disks: readonly RestoreDiskPlan[];
  /** Every interface, in the order of their positions. */
  readonly nics: readonly RestoreNicPlan[];
  /** Empty, or the plan is not run. */
  readonly conflicts: readonly RestoreConflict[];
  /** Every choice with its reason. */
  readonly decisions: readonly Decision[];
}
