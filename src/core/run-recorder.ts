import { randomBytes } from 'node:crypto';
import type { Clock } from './clock.ts';
import { BackupError } from './errors.ts';
import type { ProgressEvent, ProgressListener, RunKind } from './progress.ts';
import {
  type Decision,
  type DiskReport,
  type HookReport,
  type ReceiptItem,
  RunError,
  type RunReport,
  type StageReport,
  type TransferReport,
  type Warning,
} from './report.ts';
import { slowSideOf, type Work } from './slow-side.ts';
import { type Stopwatch, systemStopwatch } from './stopwatch.ts';
import { TransferMeter } from './transfer-meter.ts';

export interface RunRecorderOptions {
  readonly run: RunKind;
  readonly vm: { readonly uuid: string; readonly name: string };
  /** Uuids of the plan's disks: their order is the report's. @defaultValue as they finish */
  readonly diskOrder?: readonly string[] | undefined;
  readonly clock: Clock;
  /** @defaultValue this thread's */
  readonly stopwatch?: Stopwatch | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** A name for a run that no other has. */
export function newRunId(): string {
  return randomBytes(6).toString('hex');
}

/** Collects what a run does while it does it, and makes the report of it, however it ends. */
export class RunRecorder {
  readonly runId = newRunId();
  readonly decisions: Decision[] = [];
  readonly warnings: Warning[] = [];
  readonly receipt: ReceiptItem[] = [];
  readonly disks: DiskReport[] = [];
  readonly hooks: HookReport[] = [];
  point: string | undefined;
  resumableUntil: string | undefined;
  readonly #options: RunRecorderOptions;
  readonly #stopwatch: Stopwatch;
  readonly #startedAt: number;
  readonly #stages: { name: string; startedAt: number; mark: Work }[] = [];
  readonly #meters: TransferMeter[] = [];
  #settled = false;

  constructor(options: RunRecorderOptions) {
    this.#options = options;
    this.#stopwatch = options.stopwatch ?? systemStopwatch;
    this.#startedAt = options.clock.now();
  }

  /** The next part of the work begins. */
  stage(name: string): void {
    const { run, vm, clock } = this.#options;
    this.#stages.push({ name, startedAt: clock.now(), mark: this.#mark() });
    this.#tell({ kind: 'stage', run, stage: name, vmUuid: vm.uuid });
  }

  /** For a transfer that begins: what it measures is in the report, however it ends. */
  meter(): TransferMeter {
    const meter = new TransferMeter(this.#options.run === 'restore' ? 'store' : 'host', this.#stopwatch);
    this.#meters.push(meter);
    return meter;
  }

  /** What was to be made is made and stays: from now on a listener that throws is a warning, not the end of the run. */
  settle(): void {
    this.#settled = true;
  }

  decide(decision: Decision): void {
    this.decisions.push(decision);
  }

  /** A hook has ended: report, ledger, and a warning where it did not succeed. */
  hookEnded(report: HookReport): void {
    const { hook, outcome, error } = report;
    this.hooks.push(report);
    this.decide({ subject: 'vm', topic: `hook-${hook}`, choice: outcome, reason: error ?? 'as asked for' });
    if (outcome !== 'succeeded') this.warn('HOOK_FAILED', `the hook ${hook} the snapshot ${outcome}: ${error}`);
  }

  /** Another way than planned: ledger, progress. */
  fallBack(subject: string, from: string, to: string, reason: string): void {
    this.decide({ subject, topic: 'fallback', choice: to, reason });
    this.#tell({ kind: 'fell-back', run: this.#options.run, subject, from, to, reason });
  }

  /** Something failed and is tried again: progress only, for the run is none the worse. */
  retry(subject: string, cause: unknown, attempt: number, waitMs: number): void {
    this.#tell({ kind: 'retrying', run: this.#options.run, subject, attempt, waitMs, reason: messageOf(cause) });
  }

  warn(code: string, message: string): void {
    this.warnings.push({ code, message });
    this.#tell({ kind: 'warning', run: this.#options.run, code, message });
  }

  report(outcome: RunReport['outcome'], error?: BackupError): RunReport {
    const now = this.#options.clock.now();
    const { run, vm } = this.#options;
    const stages = this.#stagesUntil(now);
    return {
      run,
      runId: this.runId,
      vm,
      point: this.point,
      outcome,
      startedAt: new Date(this.#startedAt).toISOString(),
      finishedAt: new Date(now).toISOString(),
      stages: stages.map(({ report }) => report),
      disks: this.#disksInOrder(),
      transfer: this.#transferReport(stages.filter(({ report }) => report.name === 'transfer')),
      hooks: this.hooks,
      decisions: this.decisions,
      warnings: this.warnings,
      receipt: this.receipt,
      resumableUntil: this.resumableUntil,
      error: error && { code: error.code, message: error.message },
    };
  }

  /** The error that ends a run: what went wrong, with the report. */
  failure(cause: unknown, signal: AbortSignal | undefined): RunError {
    if (signal?.aborted === true) {
      const error = new BackupError('ABORTED', `the ${this.#options.run} of ${this.#options.vm.name} was aborted`);
      return new RunError('ABORTED', error.message, this.report('aborted', error), signal.reason);
    }
    const error = cause instanceof BackupError ? cause : new BackupError('RUN_FAILED', messageOf(cause), { cause });
    return new RunError(error.code, error.message, this.report('failed', error), cause);
  }

  #stagesUntil(now: number): { readonly report: StageReport; readonly work: Work }[] {
    const end = { startedAt: now, mark: this.#mark() };
    return this.#stages.map(({ name, startedAt, mark }, index) => {
      const next = this.#stages[index + 1] ?? end;
      const work = { elapsedMs: next.mark.elapsedMs - mark.elapsedMs, busyMs: next.mark.busyMs - mark.busyMs };
      const durationMs = next.startedAt - startedAt;
      // Two clocks, one of whole milliseconds: the part is not to be larger than the whole.
      return { report: { name, durationMs, busyMs: Math.min(durationMs, Math.round(work.busyMs)) }, work };
    });
  }

  /** As planned, not as they happened to finish. What is no disk of the plan, an archive of them all, comes first. */
  #disksInOrder(): DiskReport[] {
    const { diskOrder = [] } = this.#options;
    const place = ({ vdiUuid }: DiskReport) => diskOrder.indexOf(vdiUuid);
    return this.disks.toSorted((one, other) => place(one) - place(other));
  }

  #transferReport(stages: readonly { readonly work: Work }[]): TransferReport {
    const sum = { bytes: 0, hostMs: 0, hashMs: 0, storeMs: 0 };
    for (const { bytes, time } of this.#meters) {
      sum.bytes += bytes;
      sum.hostMs += time.hostMs;
      sum.hashMs += time.hashMs;
      sum.storeMs += time.storeMs;
    }
    const work = { elapsedMs: 0, busyMs: 0 };
    for (const stage of stages) {
      work.elapsedMs += stage.work.elapsedMs;
      work.busyMs += stage.work.busyMs;
    }
    return { ...sum, ...slowSideOf(sum, work) };
  }

  #mark(): Work {
    return { elapsedMs: this.#stopwatch.now(), busyMs: this.#stopwatch.busy() };
  }

  #tell(event: ProgressEvent): void {
    try {
      this.#options.onProgress?.(event);
    } catch (error) {
      if (!this.#settled) throw error;
      this.warnings.push({ code: 'LISTENER_FAILED', message: `onProgress threw: ${messageOf(error)}` });
    }
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
