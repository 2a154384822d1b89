import { type InspectOptions, inspect } from 'node:util';
import { BackupError, type ErrorCode } from './errors.ts';
import type { RunKind } from './progress.ts';
import { redact } from './redact.ts';

/** Why something was done as it was: one line of the ledger. */
export interface Decision {
  /** What it is about: a disk's uuid, or `vm`. */
  readonly subject: string;
  /** `mode`, `transport`, `tracking`, `fallback` … */
  readonly topic: string;
  /** What was done. */
  readonly choice: string;
  /** Why, in words. */
  readonly reason: string;
}

/** Something that a person should know of a run that went on, or succeeded. */
export interface Warning {
  /** Stable; each is explained in `docs/errors.md`. */
  readonly code: string;
  /** One sentence for people. */
  readonly message: string;
}

/** Something a run made or turned on, on the host or in the repository, and what became of it. */
export interface ReceiptItem {
  /** `intent`: a note on the VM. `block`: a forbidden migration. `tracking`: changed block tracking that was turned on. */
  readonly kind: 'snapshot' | 'disk' | 'vm' | 'intent' | 'block' | 'point' | 'tracking';
  /** The object's uuid; a point's name; of `tracking` the disk's uuid. */
  readonly uuid: string;
  /** Its name when it was made. */
  readonly name: string;
  /** `kept`: meant to stay. `left`: could not be removed, see `error`. */
  readonly state: 'removed' | 'kept' | 'left';
  /** Why it is left. */
  readonly error?: string | undefined;
}

/** One part of a run, and how long it took. */
export interface StageReport {
  /** As the event `stage` called it. */
  readonly name: string;
  /** In milliseconds. */
  readonly durationMs: number;
  /** For how many of them this thread worked, for this run or anything else; for the others it waited. */
  readonly busyMs: number;
}

/**
 * Whom a transfer waited for, in milliseconds; no moment is counted twice. What is missing to its duration went before
 * its first byte: a slot within `limits`, the host's attaching of the disk, the first reads.
 */
export interface TransferTime {
  /**
   * For bytes of the host; of a restore, until it had taken ours and said that all is well. A limit of `bytesPerSecond`
   * is in it; so is TLS, for which Node tells no time of its own, and what the host compresses.
   */
  readonly hostMs: number;
  /** For this thread to hash; 0 where the store does not tell (`WriteOptions.onHashed`). */
  readonly hashMs: number;
  /** For the store to take the bytes and to make them last; of a restore, for the point's bytes, merged. */
  readonly storeMs: number;
}

/**
 * `host`: waiting for it. `store`: waiting for it. `process`: this thread had work, be it hashing, TLS or something else.
 * `none`: nothing was moved.
 */
export type SlowSide = 'host' | 'store' | 'process' | 'none';

/** All that a run moved, also what it did not move whole; times are the sums of transfers that ran at once. */
export interface TransferReport extends TransferTime {
  /** That crossed the network. */
  readonly bytes: number;
  /** What the largest part of the stage `transfer` went to. */
  readonly slowSide: SlowSide;
  /** Which part of it, from 0 to 1. */
  readonly share: number;
}

/** What happened to one disk. */
export interface DiskReport {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  /** The disk's name on the host. */
  readonly name: string;
  /** `full` or `delta`; of a restore `restore`, or `delta` for what goes onto an imported disk. */
  readonly mode: string;
  /** `raw`, `vhd`, `nbd`, `xva`. */
  readonly transport: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** Bytes of the disk that crossed the network. */
  readonly bytesMoved: number;
  /** In milliseconds. */
  readonly durationMs: number;
  /** Whom it waited for. The disks of one archive travel together, and each has the archive's. */
  readonly time: TransferTime;
}

/** How a hook of the user's ended, before or after the snapshot. */
export interface HookReport {
  /** On which side of the snapshot it ran. */
  readonly hook: 'before' | 'after';
  /** `aborted`: the run's signal fired while it ran. */
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
  /** Which operation it was. */
  readonly run: RunKind;
  /** Names the run, on the host, too: in marks and in names of snapshots. */
  readonly runId: string;
  /** The VM that was backed up, or that a restore came from. */
  readonly vm: {
    /** Its uuid at the point. */
    readonly uuid: string;
    /** Its name at the point. */
    readonly name: string;
  };
  /** The restore point made or used. */
  readonly point?: string | undefined;
  /** `aborted`: the run's signal fired; the rest is in `error`. */
  readonly outcome: 'success' | 'failed' | 'aborted';
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** ISO 8601, UTC. */
  readonly finishedAt: string;
  /** In their order. */
  readonly stages: readonly StageReport[];
  /** Those that were moved, in the order of the plan. */
  readonly disks: readonly DiskReport[];
  /** Who was slow. */
  readonly transfer: TransferReport;
  /** The user's hooks that ran, in their order. */
  readonly hooks: readonly HookReport[];
  /** Everything that was decided, from the plan on. */
  readonly decisions: readonly Decision[];
  /** What a person should know. */
  readonly warnings: readonly Warning[];
  /** What the run made or turned on, and what became of it. */
  readonly receipt: readonly ReceiptItem[];
  /** ISO 8601, UTC: of a backup that was cut short and that a later one can go on with until then. */
  readonly resumableUntil?: string | undefined;
  /** Why it did not succeed. */
  readonly error?:
    | {
        /** Stable, see {@link ErrorCode}. */
        readonly code: string;
        /** One sentence for people. */
        readonly message: string;
      }
    | undefined;
}

/**
 * How a run of a strategy fails: the code, message and facts of what went wrong, which is the `cause`, and the run's
 * report. An aborted run has the code `ABORTED` and the signal's reason as its cause.
 */
export class RunError extends BackupError {
  /** What the run did until then. */
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

  /** The stack and what matters at once; all the rest is in `report`. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { code, xapiCode, retryable, cause, report } = this;
    const receipt = this.receipt.map(({ kind, name, state }) => `${kind} ${name}: ${state}`);
    const { runId, outcome } = report;
    const shown = {
      code,
      ...(xapiCode !== undefined && { xapiCode }),
      retryable,
      runId,
      outcome,
      receipt,
      cause,
    };
    return redact(`${this.stack} ${inspect(shown, options)}`);
  }
}

function xapiCodeOf(cause: unknown): string | undefined {
  const code = typeof cause === 'object' && cause !== null && 'xapiCode' in cause ? cause.xapiCode : undefined;
  return typeof code === 'string' ? code : undefined;
}
