import { createLog } from '../core/index.ts';
import type { Session } from './client-handshake.ts';
import type { Command, PendingCommand } from './command.ts';
import { openConnection } from './connect.ts';
import { Connection } from './connection.ts';
import { TRANSMISSION } from './constants.ts';
import { NbdError } from './errors.ts';
import { halve, type Job } from './job.ts';
import { judgeFailure } from './job-failure.ts';
import type { Settings } from './settings.ts';

const log = createLog('nbd');

/** A read that fails is not halved below this, in bytes. */
const SECTOR = 512;

/**
 * The connections to one export. Jobs go to whichever has room; another connection is opened when none has, one after
 * another; and when one is lost, only the jobs it had in flight are sent again elsewhere.
 */
export class ConnectionPool {
  readonly #settings: Settings;
  readonly #session: Session;
  readonly #maxConnections: number;
  readonly #connections = new Set<Connection>();
  readonly #sent = new Map<Job, { connection: Connection; pending: PendingCommand }>();
  readonly #stop = new AbortController();
  readonly #leaving = new Set<Promise<void>>();
  /** Lost ones that the caller was told of: once each, however many requests were in flight. */
  readonly #told = new WeakSet<Connection>();
  #queue: Job[] = [];
  #opening: Promise<void> | undefined;
  #generation = 0;
  /** Connections lost since a request was last answered. */
  #lossesInARow = 0;
  /** An additional connection failed: go on with those there are. */
  #mayGrow = true;
  #broken: NbdError | undefined;
  /** Why the last connection was lost. */
  #lost: NbdError | undefined;
  #onIdle: (() => void) | undefined;

  private constructor(settings: Settings, session: Session) {
    this.#settings = settings;
    this.#session = session;
    const { connections } = settings;
    const { flags } = session;
    const several = (flags & (TRANSMISSION.CAN_MULTI_CONN | TRANSMISSION.READ_ONLY)) !== 0;
    this.#maxConnections = several ? connections : 1;
  }

  /** Opens the first connection; its failure is the caller's to retry. */
  static async open(settings: Settings, signal: AbortSignal | undefined): Promise<ConnectionPool> {
    const { transport, session } = await openConnection(settings, signal);
    const pool = new ConnectionPool(settings, session);
    pool.#add(new Connection(transport, session, settings, pool.#generation));
    return pool;
  }

  get session(): Session {
    return this.#session;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  submit(jobs: Iterable<Job>): void {
    this.#queue.push(...jobs);
    this.#pump();
  }

  /** Takes jobs back. Resolves when none of their targets is written to any more. */
  async cancel(jobs: readonly Job[]): Promise<void> {
    for (const job of jobs) job.cancel();
    this.#queue = this.#queue.filter((job) => !job.cancelled);
    const sent = [...this.#sent].filter(([job]) => job.cancelled);
    await Promise.all(sent.map(([, { connection, pending }]) => connection.abandon(pending)));
    this.#checkIdle();
  }

  /** Waits for what was submitted, then says goodbye on every connection and awaits their ends. */
  async close(): Promise<void> {
    if (this.#queue.length > 0 || this.#sent.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#onIdle = resolve;
      await promise;
    }
    this.#stop.abort();
    await this.#opening;
    await Promise.all([...this.#leaving, ...[...this.#connections].map((connection) => connection.disconnect())]);
  }

  #pump(): void {
    if (this.#broken !== undefined) this.#failQueue(this.#broken);
    while (this.#queue.length > 0) {
      const job = this.#queue[0]!;
      const connection = this.#pick(job.command);
      if (connection === undefined) break;
      this.#queue.shift();
      if (!job.cancelled) void this.#run(job, connection);
    }
    if (this.#queue.length > 0) this.#grow();
    this.#checkIdle();
  }

  /** The connection with the fewest requests in flight. */
  #pick(command: Command): Connection | undefined {
    let best: Connection | undefined;
    for (const connection of this.#connections) {
      if (!connection.hasRoomFor(command)) continue;
      if (best === undefined || connection.inFlight < best.inFlight) best = connection;
    }
    return best;
  }

  async #run(job: Job, connection: Connection): Promise<void> {
    const pending = connection.send(job.command);
    this.#sent.set(job, { connection, pending });
    try {
      const extents = await pending.settled;
      this.#lossesInARow = 0;
      this.#sent.delete(job);
      job.done(extents);
    } catch (error) {
      this.#sent.delete(job);
      if (!job.cancelled) this.#recoverOrFail(job, error, connection);
    }
    this.#leaveIfRetired(connection);
    this.#pump();
  }

  /** A caller that is told of a loss may throw: that is the end of the request. */
  #recoverOrFail(job: Job, error: unknown, connection: Connection): void {
    try {
      this.#recover(job, error, connection);
    } catch (failure) {
      job.failed(failure as Error);
    }
  }

  #tellLoss(connection: Connection, cause: Error): void {
    if (this.#told.has(connection)) return;
    this.#told.add(connection);
    this.#settings.onRetry(cause, 1, 0);
  }

  #recover(job: Job, error: unknown, connection: Connection): void {
    const verdict = judgeFailure(job, error, this.#session.structured ? this.#session.flags : 0, this.#settings);
    if (verdict.kind === 'fail') {
      job.failed(verdict.error);
      return;
    }
    if (verdict.kind === 'halve') {
      const halves = halve(job, Math.max(this.#session.blockSizes?.minimum ?? 0, SECTOR));
      if (halves === undefined) job.failed(verdict.error);
      else this.#queue.unshift(...halves);
      return;
    }
    if (verdict.kind === 'elsewhere') connection.retire();
    if (verdict.kind === 'elsewhere' || error instanceof NbdError) this.#tellLoss(connection, error as Error);
    if (verdict.kind === 'again' && verdict.flags !== undefined) job.command = { ...job.command, flags: verdict.flags };
    this.#queue.unshift(job);
  }

  /** A server that goes down answers what it has; then it is told that we go. */
  #leaveIfRetired(connection: Connection): void {
    if (!connection.mayLeave || !this.#connections.delete(connection)) return;
    const leaving = connection.disconnect().finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
  }

  #grow(): void {
    if (this.#opening !== undefined || this.#stop.signal.aborted) return;
    const isFirst = this.#connections.size === 0;
    if (!isFirst && (!this.#mayGrow || this.#connections.size >= this.#maxConnections)) return;
    this.#opening = (isFirst ? this.#reopen() : this.#openAnother()).finally(() => {
      this.#opening = undefined;
      this.#pump();
    });
  }

  async #openAnother(): Promise<void> {
    try {
      await this.#openOne();
    } catch (error) {
      this.#mayGrow = false;
      if (this.#stop.signal.aborted) return;
      log.debug('no additional connection', { server: this.#settings.peer.server, why: String(error) });
    }
  }

  /** Opens a connection when there is none left; when that fails for good, so does all that waits. */
  async #reopen(): Promise<void> {
    const { reconnect, clock, peer } = this.#settings;
    const startedAt = clock.now();
    let refusals = 0;
    let full = false;
    let lastError: NbdError | undefined;
    if (reconnect.tries === 0) return this.#failQueue(this.#lost ?? this.#stopped());
    for (;;) {
      const attempt = ++this.#lossesInARow;
      try {
        if (attempt > 1) {
          const waitMs = this.#waitMs(attempt, full);
          if (clock.now() + waitMs - startedAt >= reconnect.totalMs) throw this.#outOfTime(attempt - 1, lastError);
          if (lastError !== undefined) this.#settings.onRetry(lastError, attempt, waitMs);
          await clock.sleep(waitMs, { signal: this.#stop.signal });
        }
        return await this.#openOne();
      } catch (error) {
        if (this.#stop.signal.aborted) return this.#failQueue(this.#stopped());
        if (!(error instanceof NbdError))
          return this.#failQueue(error instanceof Error ? error : new Error(String(error)));
        log.debug('reconnecting failed', { server: peer.server, attempt, code: error.code });
        const outOfTime = error.code === 'NBD_RECONNECT_TIMEOUT';
        lastError = error;
        full = error.code === 'NBD_NO_GREETING';
        if (isRefusal(error)) refusals++;
        const mayGoOn = isRefusal(error) ? refusals <= 2 : error.retryable;
        if (error === this.#broken || outOfTime || !mayGoOn || attempt >= reconnect.tries) {
          this.#lossesInARow = 0; // whoever asks next gets tries of its own
          return this.#failQueue(error);
        }
      }
    }
  }

  #outOfTime(attempts: number, cause: NbdError | undefined): NbdError {
    const { fail, reconnect } = this.#settings;
    const why = cause === undefined ? '' : `; the last failed with: ${cause.message}`;
    const message = `no new connection within ${reconnect.totalMs} ms and ${attempts} tries${why}`;
    return fail('NBD_RECONNECT_TIMEOUT', 'connect', message, { cause, retryable: true });
  }

  /** A server without a free slot needs longer. */
  #waitMs(attempt: number, full: boolean): number {
    const { delayMs, maxDelayMs } = this.#settings.reconnect;
    return Math.min(delayMs * 2 ** (attempt - 2) * (full ? 5 : 1), maxDelayMs);
  }

  async #openOne(): Promise<void> {
    const { transport, session } = await openConnection(this.#settings, this.#stop.signal);
    const connection = new Connection(transport, session, this.#settings, ++this.#generation);
    const changed =
      session.size !== this.#session.size || ((session.flags ^ this.#session.flags) & TRANSMISSION.READ_ONLY) !== 0;
    if (changed) {
      await connection.disconnect();
      const message = `another connection shows another disk: expected ${this.#session.size} bytes, got ${session.size}`;
      this.#broken = this.#settings.fail('NBD_EXPORT_CHANGED', 'export', message);
      throw this.#broken;
    }
    this.#add(connection);
  }

  #add(connection: Connection): void {
    this.#connections.add(connection);
    void connection.ended.then((error) => {
      if (!this.#connections.delete(connection) || this.#stop.signal.aborted) return;
      this.#lost = error;
      log.debug('connection lost', { server: this.#settings.peer.server, code: error.code });
      this.#pump();
    });
  }

  #failQueue(error: Error): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const job of queue) job.failed(error);
  }

  #stopped(): NbdError {
    return this.#settings.fail('NBD_CLOSED', 'disconnect', 'the disk was closed');
  }

  #checkIdle(): void {
    if (this.#queue.length === 0 && this.#sent.size === 0) this.#onIdle?.();
  }
}

/** These may pass (nbdkit, nbd-server), but seldom do. */
function isRefusal(error: NbdError): boolean {
  return error.code === 'NBD_EXPORT_UNKNOWN' || error.code === 'NBD_REFUSED';
}
