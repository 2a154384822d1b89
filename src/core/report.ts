import { BackupError, type ErrorCode } from './errors.ts';
import type { RunKind } from './progress.ts';

/** Why something was done as it was: one line of the ledger. */
export interface Decision {
  /** What it is about: a disk's uuid, or `vm`. */
  readonly subject: string;
  /** `mode`, `transport`, `tracking`, `fallback` … */
  readonly topic: string;
  readonly choice: string;
  readonly reason: string;
}

export interface Warning {
  readonly code: string;
  readonly message: string;
}

/** Something a run made or turned on, on the host or in the repository, and what became of it. */
export interface ReceiptItem {
  readonly kind: 'snapshot' | 'disk' | 'vm' | 'intent' | 'block' | 'point' | 'tracking';
  /** The object's uuid; a point's name; of `tracking` the disk's uuid. */
  readonly uuid: string;
  readonly name: string;
  /** `kept`: meant to stay. `left`: could not be removed, see `error`. */
  readonly state: 'removed' | 'kept' | 'left';
  readonly error?: string | undefined;
}

export interface StageReport {
  readonly name: string;
  /** In milliseconds. */
  readonly durationMs: number;
}

export interface DiskReport {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  readonly name: string;
  readonly mode: string;
  readonly transport: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** Bytes of the disk that crossed the network. */
  readonly bytesMoved: number;
  /** In milliseconds. */
  readonly durationMs: number;
}

/** How a hook of the user's ended, before or after the snapshot. */
export interface HookReport {
  readonly hook: 'before' | 'after';
  readonly outcome: 'succeeded' | 'failed' | 'timed-out' | 'aborted';
  /** In milliseconds. */
  readonly durationMs: number;
  /** Of a command that ended by itself. */
  readonly exitCode?: number | undefined;
  /** The last of what a command printed, without secrets that we know by their form. */
  readonly output?: string | undefined;
  /** Why it did not succeed. */
  readonly error?: string | undefined;
}

/** What a run did, as plain JSON: the same from success and failure. */
export interface RunReport {
  readonly run: RunKind;
  readonly runId: string;
  readonly vm: { readonly uuid: string; readonly name: string };
  /** The restore point made or used. */
  readonly point?: string | undefined;
  readonly outcome: 'success' | 'failed' | 'aborted';
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** ISO 8601, UTC. */
  readonly finishedAt: string;
  readonly stages: readonly StageReport[];
  readonly disks: readonly DiskReport[];
  /** The user's hooks that ran, in their order. */
  readonly hooks: readonly HookReport[];
  readonly decisions: readonly Decision[];
  readonly warnings: readonly Warning[];
  readonly receipt: readonly ReceiptItem[];
  readonly error?: { readonly code: string; readonly message: string } | undefined;
}

/**
 * How a run of a strategy fails: the code, message and facts of what went wrong, which is the `cause`, and the run's
 * report. An aborted run has the code `ABORTED` and the signal's reason as its cause.
 */
export class RunError extends BackupError {
  readonly report: RunReport;
  /** The host's own code, where the host refused. */
  readonly xapiCode: string | undefined;

  constructor(code: ErrorCode, message: string, report: RunReport, cause: unknown) {
    const known = cause instanceof BackupError ? cause : undefined;
    super(code, message, { cause, retryable: known?.retryable, facts: known?.facts });
    this.report = report;
    this.xapiCode = xapiCodeOf(cause);
  }

  /** What the run made, and whether it is gone. */
  get receipt(): readonly ReceiptItem[] {
    return this.report.receipt;
  }
}

function xapiCodeOf(cause: unknown): string | undefined {
  const code = typeof cause === 'object' && cause !== null && 'xapiCode' in cause ? cause.xapiCode : undefined;
  return typeof code === 'string' ? code : undefined;
}
