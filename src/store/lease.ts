import type { CallOptions, ProgressListener } from '../core/index.ts';

/** What a writer is at work on. */
export type LeasePurpose = 'backup' | 'copy' | 'prune' | 'remove' | 'write';

/** The process that holds a lease. */
export interface LeaseHolder {
  /** Of its machine. */
  readonly hostname: string;
  /** Its number there. */
  readonly pid: number;
  /** The thread of that process, 0 for the main one. */
  readonly thread: number;
}

/** Who writes the points of a VM. */
export interface LeaseInfo {
  /** Whose points are written. */
  readonly vmUuid: string;
  /** What for. */
  readonly purpose: LeasePurpose;
  /** By whom. */
  readonly holder: LeaseHolder;
  /** ISO 8601, UTC, by the holder's clock. */
  readonly acquiredAt: string;
  /** ISO 8601, UTC, by the holder's clock, which puts it off while it lives. */
  readonly expiresAt: string;
  /**
   * `expired`: its holder has not been heard of in time. `abandoned`: its holder was a process of this machine, which is
   * gone. Both are taken by whoever asks next.
   */
  readonly state: 'held' | 'expired' | 'abandoned';
}

export interface WaitOptions extends CallOptions {
  /**
   * How long to wait for another writer of the VM, in milliseconds.
   * @defaultValue `0`: `LEASE_HELD` at once
   */
  readonly waitMs?: number | undefined;
}

export interface AcquireLeaseOptions extends WaitOptions {
  /** @defaultValue `'write'` */
  readonly purpose?: LeasePurpose | undefined;
  /**
   * Takes it even from a holder that seems to live: that one fails with `LEASE_LOST` before it could commit.
   * @defaultValue `false`
   */
  readonly steal?: boolean | undefined;
  /**
   * Called with `waiting` when a wait begins, and again when another one has the lease; where `purpose` is `backup`, `copy` or
   * `prune`.
   * @defaultValue nobody is told
   */
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * The right to write the points of one VM, which one holder has at a time; it is renewed until it is released. Reading needs
 * none. Disposing of it releases it.
 */
export interface Lease extends AsyncDisposable {
  /** Whose points may be written. */
  readonly vmUuid: string;
  /** Fires with a `LEASE_LOST` when it is found out that somebody else has taken the lease. */
  readonly signal: AbortSignal;
  /** Throws BackupError `LEASE_LOST` where somebody else has taken the lease, or it was released. */
  assertHeld(options?: CallOptions): Promise<void>;
  /** Gives it up. It never fails: what cannot be removed now is abandoned, and taken by whoever asks next. */
  release(): Promise<void>;
}
