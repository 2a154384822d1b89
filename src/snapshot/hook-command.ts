import { type ChildProcess, spawn } from 'node:child_process';
import { type Clock, redact } from '../core/index.ts';

/** A program and its arguments, as they are: no shell reads them. */
export type HookCommand = readonly [program: string, ...args: string[]];

/** How a command ended that was not ended by us. */
export interface CommandEnd {
  /** `null` where a signal ended it. */
  readonly exitCode: number | null;
  readonly killedBy: string | null;
}

/** The last of what a command prints is kept, in characters. */
const MAX_OUTPUT = 4096;

/** From the polite signal to the other one, in milliseconds. */
const GRACE_MS = 5000;

/** How long output is waited for after the end: a process that the command left behind may hold its pipes. */
const DRAIN_MS = 500;

/** Commands get a process group of their own, so that what they started ends with them. Windows has no groups. */
const OWN_GROUP = process.platform !== 'win32';

/**
 * Runs a local command to its end. When the signal fires, it and what it started are asked to end, then made to; only
 * when it has ended does this settle.
 *
 * @returns how it ended by itself, `undefined` where the signal ended it, and the last that it printed
 * @throws what the system says where the program cannot be started
 */
export async function runCommand(
  [program, ...args]: HookCommand,
  environment: Readonly<Record<string, string>>,
  { signal, clock }: { readonly signal: AbortSignal; readonly clock: Clock },
): Promise<{ readonly end: CommandEnd | undefined; readonly output: string }> {
  signal.throwIfAborted();
  const env = { ...process.env, ...environment };
  const child = spawn(program, args, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: OWN_GROUP,
    windowsHide: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-MAX_OUTPUT);
    });
  }
  const over = new AbortController();
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping = endChild(child, clock, over.signal);
    stopping.catch(() => {}); // not swallowed: awaited below
  };
  signal.addEventListener('abort', stop, { once: true });
  try {
    const end = await exitOf(child, clock);
    return { end: stopping === undefined ? end : undefined, output: redact(output) };
  } finally {
    signal.removeEventListener('abort', stop);
    over.abort();
    await stopping;
    child.stdout.destroy();
    child.stderr.destroy();
  }
}

/** Resolves when the process has ended and its output is there. */
async function exitOf(child: ChildProcess, clock: Clock): Promise<CommandEnd> {
  const exited = Promise.withResolvers<CommandEnd>();
  const closed = Promise.withResolvers<void>();
  child.on('error', exited.reject);
  child.once('exit', (exitCode, killedBy) => exited.resolve({ exitCode, killedBy }));
  child.once('close', () => closed.resolve());
  const end = await exited.promise;
  const drained = new AbortController();
  const sleeping = clock.sleep(DRAIN_MS, { signal: drained.signal }).catch(() => {}); // ended by us
  await Promise.race([closed.promise, sleeping]);
  drained.abort();
  return end;
}

/** Asks the process group to end, and ends what does not. `over` fires when the process itself is gone. */
async function endChild(child: ChildProcess, clock: Clock, over: AbortSignal): Promise<void> {
  kill(child, 'SIGTERM');
  try {
    await clock.sleep(GRACE_MS, { signal: over });
  } catch (error) {
    if (!over.aborted) throw error;
  }
  kill(child, 'SIGKILL'); // also when the process has gone: others of its group may not have listened
}

function kill(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (child.pid === undefined) return; // it never started
  try {
    process.kill(OWN_GROUP ? -child.pid : child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // nobody is there any more
  }
}
