import type { REPLServer } from 'node:repl';
import type { CallOptions } from '../core/index.ts';
import type { ConnectHostOptions } from '../host/index.ts';
import type { SimulatorOptions } from '../simulator/index.ts';

/** What a session begins with, and where it is typed and printed. `signal` ends it, as `close` does. */
export interface ReplOptions extends CallOptions {
  /** The host to connect to: `host` at the prompt. @defaultValue none */
  readonly host?: ConnectHostOptions | undefined;
  /**
   * Starts a simulated pool with two VMs to play with, and connects to it: `simulator` and `host` at the prompt. Not
   * together with {@link host}.
   * @defaultValue `false`
   */
  readonly simulate?: boolean | SimulatorOptions | undefined;
  /**
   * Folder of the repository, which is made where there is none: `repository` at the prompt.
   * @defaultValue none; with {@link simulate} one in memory
   */
  readonly repository?: string | undefined;
  /** @defaultValue `process.stdin` */
  readonly input?: NodeJS.ReadableStream | undefined;
  /** @defaultValue `process.stdout` */
  readonly output?: NodeJS.WritableStream | undefined;
  /**
   * Is it a terminal, with keys to edit a line and colours?
   * @defaultValue whether `output` is one
   */
  readonly terminal?: boolean | undefined;
  /**
   * Where what was typed is kept from one session to the next, readable by its owner only; `false`: nowhere. Inputs
   * that begin with a space or may hold a secret are never written.
   * @defaultValue `.xen-backup-sdk_history` in the home folder on a terminal, else nowhere
   */
  readonly historyFile?: string | false | undefined;
}

/** A running session. It ends with `.exit`, Ctrl-D, the end of the input, `signal` or `close`. */
export interface Repl extends AsyncDisposable {
  /** Node's own: its `context` takes more names, `defineCommand` more commands. */
  readonly server: REPLServer;
  /** Resolves when the session has ended and all that it opened is closed; rejects where something could not be. */
  readonly closed: Promise<void>;
  /** Ends the session: operations under way are aborted and take back what they made, then hosts and stores are closed. */
  close(): Promise<void>;
}

/**
 * Starts Node's REPL with every public name of the package at hand, and with `host`, `repository` and `simulator` as
 * the options say. Lists of records, plans and reports print as tables. `backupVm` and its like draw their progress and
 * stop at Ctrl-C, unless they are given `onProgress` and `signal`; hosts connected at the prompt are closed at the end.
 *
 * @throws what `connectHost`, `openRepository` and `startSimulator` throw; TypeError for `host` with `simulate`.
 *
 * @example
 * const repl = await startRepl({ simulate: true });
 * await repl.closed;
 */
export async function startRepl(options: ReplOptions = {}): Promise<Repl> {
  // Loaded when it is wanted: the rest of this entry must not bring the simulator and `node:domain` with it.
  const { openSession } = await import('./repl-session.ts');
  return openSession(options);
}
