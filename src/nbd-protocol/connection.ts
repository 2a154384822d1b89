import { createLog, FormatError } from '../core/index.ts';
import type { Session } from './client-handshake.ts';
import { type Command, dataLength, PendingCommand } from './command.ts';
import { COMMAND } from './constants.ts';
import { ConnectionEnded, NbdError } from './errors.ts';
import { encodeRequest } from './messages.ts';
import { readReplies } from './replies.ts';
import type { Settings } from './settings.ts';
import type { Transport } from './transport.ts';

const log = createLog('nbd');

/** More data than this is never in flight on one connection, in bytes, unless one request alone has more. */
const MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024;
/** How long a read that was aborted may still fill its buffer before the connection is given up, in milliseconds. */
const ABANDON_GRACE_MS = 500;

/** One connection in its transmission phase: requests in flight, told apart by their cookies. */
export class Connection {
  readonly session: Session;
  readonly #transport: Transport;
  readonly #settings: Settings;
  /** The upper half of every cookie, so that no reply of another connection can be taken for one of ours. */
  readonly #generation: number;
  readonly #pending = new Map<number, PendingCommand>();
  #nextLow = 1;
  #bytesInFlight = 0;
  #watching = false;
  #retired = false;
  #failure: NbdError | undefined;
  readonly #ended = Promise.withResolvers<NbdError>();
  readonly #stopped = new AbortController();

  constructor(transport: Transport, session: Session, settings: Settings, generation: number) {
    this.#transport = transport;
    this.session = session;
    this.#settings = settings;
    this.#generation = generation;
    const reading = transport.read(
      readReplies({
        structured: session.structured,
        contexts: session.contexts,
        find: (high, low) => (high === generation ? this.#pending.get(low) : undefined),
        finish: (low) => this.#finish(low),
      }),
    );
    reading.catch((error: unknown) => this.#fail(this.#explain(error)));
  }

  /** Resolves with the reason when the connection has ended. */
  get ended(): Promise<NbdError> {
    return this.#ended.promise;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /** May another request be sent? */
  hasRoomFor(command: Command): boolean {
    if (this.#retired || this.#failure !== undefined) return false;
    if (this.#pending.size === 0) return true;
    return (
      this.#pending.size < this.#settings.maxInFlight &&
      this.#bytesInFlight + dataLength(command) <= MAX_BYTES_IN_FLIGHT
    );
  }

  /** The server goes down, and all that was in flight is answered. */
  get mayLeave(): boolean {
    return this.#retired && this.#pending.size === 0;
  }

  /** Takes no more requests: the server is going down. */
  retire(): void {
    this.#retired = true;
  }

  /** Sends a command. Its `settled` rejects with `RequestRefused`, or with the reason why the connection ended. */
  send(command: Command): PendingCommand {
    const pending = new PendingCommand(command);
    if (this.#failure !== undefined) {
      pending.fail(this.#failure);
      return pending;
    }
    const low = this.#nextLow;
    this.#nextLow = low === 0xffffffff ? 1 : low + 1;
    const { type, flags, offset, length } = command;
    if (this.#pending.size === 0) this.#transport.lastReceivedAt = this.#settings.clock.now();
    this.#pending.set(low, pending);
    this.#bytesInFlight += dataLength(command);
    this.#transport.write(encodeRequest({ type, flags, offset, length, high: this.#generation, low }));
    if (command.data !== undefined) this.#transport.write(command.data);
    void this.#watch();
    return pending;
  }

  /** Gives a command up: its reply is thrown away. Resolves when its target is no longer written to. */
  async abandon(pending: PendingCommand): Promise<void> {
    const stop = new AbortController();
    const grace = this.#settings.clock.sleep(ABANDON_GRACE_MS, { signal: stop.signal }).then(
      () => this.#fail(this.#lost('it stopped within the data of a read that was given up')),
      () => {}, // it has landed
    );
    await pending.abandon();
    stop.abort();
    await grace;
  }

  /** Says goodbye and waits until the server has closed; for when nothing is in flight. */
  async disconnect(): Promise<void> {
    if (this.#failure !== undefined) return;
    const { timeouts, peer } = this.#settings;
    this.#retired = true;
    this.#transport.write(
      encodeRequest({ type: COMMAND.DISC, flags: 0, offset: 0, length: 0, high: this.#generation, low: 0 }),
    );
    if (!(await this.#transport.awaitClose(timeouts.disconnectMs))) {
      log.debug('no end after DISC', { server: peer.server, waitedMs: timeouts.disconnectMs });
    }
  }

  destroy(): void {
    this.#fail(this.#lost('it was given up'));
  }

  #finish(low: number): void {
    const pending = this.#pending.get(low);
    if (pending === undefined) return;
    this.#pending.delete(low);
    this.#bytesInFlight -= dataLength(pending.command);
  }

  #fail(error: NbdError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#stopped.abort();
    this.#transport.destroy(error);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#bytesInFlight = 0;
    for (const command of pending) command.fail(error);
    this.#ended.resolve(error);
  }

  #explain(error: unknown): NbdError {
    if (error instanceof NbdError) return error;
    if (error instanceof FormatError) {
      return this.#settings.fail('NBD_PROTOCOL', 'transmission', error.message, { cause: error });
    }
    const why = error instanceof ConnectionEnded ? error.message : String(error);
    return this.#lost(`${why}, with ${this.#pending.size} requests in flight`, error);
  }

  #lost(why: string, cause?: unknown): NbdError {
    return this.#settings.fail('NBD_CONNECTION_LOST', 'transmission', why, { cause, retryable: true });
  }

  /** Ends the connection when requests are in flight and no byte comes: nothing else would notice. */
  async #watch(): Promise<void> {
    if (this.#watching) return;
    this.#watching = true;
    const { clock, timeouts, fail } = this.#settings;
    try {
      while (this.#pending.size > 0) {
        const left = this.#transport.lastReceivedAt + timeouts.stallMs - clock.now();
        if (left <= 0) {
          const message = `no byte came for ${timeouts.stallMs} ms with ${this.#pending.size} requests in flight`;
          return this.#fail(fail('NBD_STALLED', 'transmission', message, { retryable: true }));
        }
        await clock.sleep(left, { signal: this.#stopped.signal });
      }
    } catch (error) {
      if (!this.#stopped.signal.aborted) throw error;
    } finally {
      this.#watching = false;
    }
  }
}
