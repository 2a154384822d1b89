import { BackupError, type Clock, createLog, HostError } from '../core/index.ts';
import type { AsyncCallOptions } from './host.ts';
import { refusal } from './host-errors.ts';
import type { Ref, TaskRecord } from './records.ts';
import type { Session } from './session.ts';
import { settledWithin } from './settled-within.ts';
import type { Timeouts } from './timeouts.ts';
import { parseTaskResult } from './xapi-client.ts';
import { GONE } from './xapi-codes.ts';

const log = createLog('host:tasks');

/** Events ring; these looks, in milliseconds, are for the times when they do not. */
const FIRST_LOOK_MS = 200;
const SLOWEST_LOOK_MS = 5000;

/** How long a host may be out of reach before we give up on one of its tasks, in milliseconds. */
const OUTAGE_MS = 120_000;

export interface TaskWaitOptions extends AsyncCallOptions {
  /** Give up after this long, in milliseconds. @defaultValue never */
  readonly timeoutMs?: number | undefined;
}

/** Tasks of the host: made, watched, cancelled, destroyed. */
export interface Tasks {
  /** Makes a task for a transfer to report to. */
  create(label: string, description: string): Promise<Ref>;
  /**
   * Resolves with the record of the ended task, whatever its verdict.
   *
   * @throws BackupError `TASK_VANISHED` (a restart of the toolstack forgets tasks), `TIMEOUT`
   */
  ended(task: Ref, options?: TaskWaitOptions): Promise<TaskRecord>;
  /** Starts `Async.<method>` and sees it through. */
  run<T>(method: string, args: readonly unknown[], options?: AsyncCallOptions): Promise<T>;
  /** Cancels a task that still runs, waits for its end, and destroys it, each in bounded time. Never rejects. */
  cancelAndDestroy(task: Ref): Promise<void>;
  /** Destroys a task that has ended, in bounded time. Never rejects. */
  destroy(task: Ref): Promise<void>;
}

/** The failure that an ended task reports; `undefined` for a success. */
export function taskFailure(
  task: TaskRecord,
  doing: string,
  session: Session,
  code: 'TASK_FAILED' | 'TRANSFER_FAILED',
): HostError | undefined {
  if (task.status === 'success') return undefined;
  const [xapiCode = task.status === 'cancelled' ? 'TASK_CANCELLED' : 'INTERNAL_ERROR', ...params] = task.error_info;
  return refusal(xapiCode, params, doing, session.scrub, code);
}

export function createTasks(session: Session, timeouts: Timeouts, clock: Clock): Tasks {
  async function read(task: Ref): Promise<TaskRecord> {
    try {
      return await session.call<TaskRecord>('task.get_record', task);
    } catch (error) {
      if (!isGone(error)) throw error;
      throw new BackupError('TASK_VANISHED', `${session.label}: the host forgot a task before it told how it ended`, {
        cause: error,
      });
    }
  }

  async function ended(task: Ref, { signal, timeoutMs, onHostProgress }: TaskWaitOptions = {}): Promise<TaskRecord> {
    const started = clock.now();
    let lastSeen = started;
    let bell: Promise<void> | undefined = session.taskBell(task);
    for (let lookMs = FIRST_LOOK_MS; ; lookMs = Math.min(lookMs * 2, SLOWEST_LOOK_MS)) {
      signal?.throwIfAborted();
      try {
        const record = await read(task);
        lastSeen = clock.now();
        if (record.status !== 'pending' && record.status !== 'cancelling') return record;
        onHostProgress?.(record.progress);
      } catch (error) {
        const passing = error instanceof BackupError && error.retryable;
        if (!passing || clock.now() - lastSeen > OUTAGE_MS) throw error;
        log.debug('cannot see a task for the moment', { code: error.code });
      }
      signal?.throwIfAborted();
      const left = timeoutMs === undefined ? lookMs : timeoutMs - (clock.now() - started);
      if (left <= 0) {
        throw new BackupError('TIMEOUT', `${session.label}: a task has not ended within ${timeoutMs} ms`, {
          retryable: true,
        });
      }
      if (await rung(bell, Math.min(lookMs, left), signal)) bell = undefined;
    }
  }

  /** Waits for the bell, but not longer than `ms`. */
  async function rung(bell: Promise<void> | undefined, ms: number, signal: AbortSignal | undefined): Promise<boolean> {
    const waking = new AbortController();
    const wake = () => waking.abort();
    signal?.addEventListener('abort', wake, { once: true });
    let rang = false;
    try {
      const nap = clock.sleep(ms, { signal: waking.signal }).catch(() => {}); // woken: by the bell, or by the caller
      const ring = bell?.then(() => {
        rang = true;
      });
      await Promise.race(ring === undefined ? [nap] : [nap, ring]);
      return rang;
    } finally {
      waking.abort();
      signal?.removeEventListener('abort', wake);
    }
  }

  async function tidy(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      if (!(await settledWithin(work(), timeouts.cleanUpMs, clock))) log.debug(`${what}: no answer`);
    } catch (error) {
      if (!isGone(error))
        log.debug(`${what} failed`, { code: (error as { xapiCode?: string }).xapiCode ?? String(error) });
    }
  }

  const destroy = (task: Ref) => tidy('task.destroy', () => session.call('task.destroy', task));

  async function cancelAndDestroy(task: Ref): Promise<void> {
    await tidy('task.cancel', () => session.call('task.cancel', task));
    await tidy('waiting for a cancelled task', () => ended(task, { timeoutMs: timeouts.cleanUpMs }));
    await destroy(task);
  }

  async function run<T>(method: string, args: readonly unknown[], options: AsyncCallOptions = {}): Promise<T> {
    options.signal?.throwIfAborted();
    const doing = `${session.label}: ${method}`;
    const task = await session.call<Ref>(`Async.${method}`, ...args);
    let record: TaskRecord;
    try {
      record = await ended(task, options);
    } catch (error) {
      await cancelAndDestroy(task);
      throw error;
    }
    await destroy(task);
    const failure = taskFailure(record, doing, session, 'TASK_FAILED');
    if (failure !== undefined) throw failure;
    return (await parseTaskResult(record.result)) as T;
  }

  return {
    create: (label, description) => session.call<Ref>('task.create', label, description),
    ended,
    run,
    cancelAndDestroy,
    destroy,
  };
}

/** Is the object of this refusal gone? */
export function isGone(error: unknown): boolean {
  return error instanceof HostError && GONE.has(error.xapiCode);
}
