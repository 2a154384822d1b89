import {
  abortable,
  anySignal,
  BackupError,
  type CallOptions,
  type Clock,
  type HookReport,
  redact,
} from '../core/index.ts';
import { type HookCommand, runCommand } from './hook-command.ts';

/** What a hook is told. A command finds the same in its environment, as `XEN_BACKUP_HOOK`, `…_VM_UUID` and so on. */
export interface HookContext {
  /** Which of the two it is. */
  readonly hook: 'before' | 'after';
  /** The VM that is about to be snapshotted. */
  readonly vm: {
    /** Its uuid. */
    readonly uuid: string;
    /** As people call it. */
    readonly name: string;
  };
  /** The run, as in its report. */
  readonly runId: string;
  /** Told to `after`: has the host taken the snapshot? */
  readonly snapshot?: 'taken' | 'failed' | undefined;
  /** Fires when the hook's time is over, and for `before` also when the run is aborted. */
  readonly signal: AbortSignal;
}

/** Something to be done on this side of the wire before or after a snapshot: freeze a database, thaw it. */
export interface SnapshotHook {
  /** A function, or a local command as a list: the program, then its arguments. No shell is involved. */
  readonly run: ((context: HookContext) => void | Promise<void>) | HookCommand;
  /**
   * How long it may take, in milliseconds. A command is then ended with all that it started; a function is left behind.
   * @defaultValue `60000`
   */
  readonly timeoutMs?: number | undefined;
  /**
   * `abort`: a hook that fails ends the run, and no snapshot stays. `continue`: it is a warning.
   * @defaultValue `'abort'` for `before`, `'continue'` for `after`
   */
  readonly onFailure?: 'abort' | 'continue' | undefined;
}

/**
 * Work around the snapshot call, as close to it as possible. `after` runs exactly once and whatever happened since
 * `before` began: also if `before` or the snapshot failed, and after an abort. Neither runs for a VM that is refused.
 */
export interface SnapshotHooks {
  /** Before the snapshot call. @defaultValue none */
  readonly before?: SnapshotHook | undefined;
  /** After the snapshot call. @defaultValue none */
  readonly after?: SnapshotHook | undefined;
}

/** Whom the hooks are about, and who is told how they ended. */
export interface HookSettings extends CallOptions {
  readonly vm: HookContext['vm'];
  readonly runId: string;
  readonly clock: Clock;
  readonly onEnded: (report: HookReport) => void;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** @throws TypeError or RangeError for hooks that cannot be run */
export function assertHooks(hooks: SnapshotHooks): void {
  for (const hook of ['before', 'after'] as const) {
    if (hooks[hook] === undefined) continue;
    const { run, timeoutMs = DEFAULT_TIMEOUT_MS } = hooks[hook];
    const isCommand = Array.isArray(run) && run.length > 0 && run.every((part) => typeof part === 'string');
    if (typeof run !== 'function' && !isCommand) {
      throw new TypeError(`hooks.${hook}.run: expected a function, or a list of texts: a program and its arguments`);
    }
    if (!(timeoutMs > 0 && timeoutMs < 2 ** 31)) {
      throw new RangeError(`hooks.${hook}.timeoutMs: expected 1 to 2147483647, got ${timeoutMs}`);
    }
  }
}

/**
 * Does `work` between the two hooks. The first failure is the one that is thrown.
 *
 * @throws BackupError `HOOK_FAILED`
 */
export async function betweenHooks<T>(
  { before, after }: SnapshotHooks,
  settings: HookSettings,
  work: () => Promise<T>,
): Promise<T> {
  let done: { readonly value: T } | undefined;
  let failure: { readonly error: unknown } | undefined;
  try {
    if (before !== undefined) await settle('before', before, settings);
    done = { value: await work() };
  } catch (error) {
    failure = { error };
  }
  if (after !== undefined) {
    const snapshot = done === undefined ? 'failed' : 'taken';
    // Not with the run's signal: what `before` froze is thawed, come what may.
    await settle('after', after, { ...settings, signal: undefined }, snapshot).catch((error: unknown) => {
      failure ??= { error };
    });
  }
  if (failure !== undefined) throw failure.error;
  return done!.value;
}

/** Runs one hook, tells how it ended, and throws where a failure is to end the run. */
async function settle(
  kind: 'before' | 'after',
  hook: SnapshotHook,
  settings: HookSettings,
  snapshot?: HookContext['snapshot'],
): Promise<void> {
  const report = await runHook(kind, hook, settings, snapshot);
  settings.onEnded(report);
  settings.signal?.throwIfAborted();
  const { onFailure = kind === 'before' ? 'abort' : 'continue' } = hook;
  if (report.outcome === 'succeeded' || onFailure === 'continue') return;
  const { name, uuid } = settings.vm;
  throw new BackupError('HOOK_FAILED', `${name} (${uuid}): the hook ${kind} the snapshot failed: ${report.error}`, {
    facts: { ...report },
  });
}

/** Never rejects: how the hook ended is in the report. */
async function runHook(
  kind: 'before' | 'after',
  { run, timeoutMs = DEFAULT_TIMEOUT_MS }: SnapshotHook,
  { vm, runId, clock, signal: aborted }: HookSettings,
  snapshot: HookContext['snapshot'],
): Promise<HookReport> {
  const startedAt = clock.now();
  const timeout = new AbortController();
  const ended = new AbortController();
  const timer = clock.sleep(timeoutMs, { signal: ended.signal }).then(
    () => timeout.abort(new BackupError('TIMEOUT', `the hook ${kind} the snapshot did not end in time`)),
    () => {}, // the hook was quicker
  );
  const signal = anySignal(aborted, timeout.signal)!;
  const context: HookContext = { hook: kind, vm, runId, snapshot, signal };
  const result = await (typeof run === 'function' ? callFunction(run, context) : callCommand(run, context, clock));
  ended.abort();
  await timer;
  const common = { hook: kind, durationMs: clock.now() - startedAt, output: result.output, exitCode: result.exitCode };
  if (result.error === undefined) return { ...common, outcome: 'succeeded' };
  if (aborted?.aborted === true) return { ...common, outcome: 'aborted', error: 'the run was aborted' };
  if (timeout.signal.aborted) return { ...common, outcome: 'timed-out', error: `no end within ${timeoutMs} ms` };
  return { ...common, outcome: 'failed', error: result.error };
}

type HookResult = Pick<HookReport, 'error' | 'exitCode' | 'output'>;

async function callFunction(
  run: (context: HookContext) => void | Promise<void>,
  context: HookContext,
): Promise<HookResult> {
  try {
    await abortable((async () => run(context))(), context.signal);
    return {};
  } catch (error) {
    return { error: messageOf(error) };
  }
}

async function callCommand(command: HookCommand, context: HookContext, clock: Clock): Promise<HookResult> {
  try {
    const { end, output } = await runCommand(command, environmentOf(context), { signal: context.signal, clock });
    if (end === undefined) return { output, error: 'it was ended' };
    if (end.exitCode === 0) return { output, exitCode: 0 };
    if (end.exitCode === null) return { output, error: `it was killed by ${end.killedBy}` };
    return { output, exitCode: end.exitCode, error: `it ended with exit code ${end.exitCode}` };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

function environmentOf({ hook, vm, runId, snapshot }: HookContext): Record<string, string> {
  return {
    XEN_BACKUP_HOOK: hook,
    XEN_BACKUP_VM_UUID: vm.uuid,
    XEN_BACKUP_VM_NAME: vm.name,
    XEN_BACKUP_RUN_ID: runId,
    ...(snapshot === undefined ? {} : { XEN_BACKUP_SNAPSHOT: snapshot }),
  };
}

function messageOf(error: unknown): string {
  return redact(error instanceof Error ? error.message : String(error));
}
