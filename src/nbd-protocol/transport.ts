import { once } from 'node:events';
import type { OnReadOpts, Socket } from 'node:net';
import { abortable, BackupError, type Clock } from '../core/index.ts';
import { ConnectionEnded, violation } from './errors.ts';

/**
 * Exact reads written as a generator: each buffer it yields comes back filled. It runs in the very event in which the
 * last byte arrives, so that a reply's data can be received where it belongs instead of being copied there.
 */
export type Reading<T> = Generator<Uint8Array, T, void>;

interface ActiveReading {
  readonly generator: Reading<unknown>;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/**
 * Size of the buffer that receives headers on a socket with `onread`, in bytes: small, since what comes behind a header is
 * copied out of it.
 */
const SCRATCH_SIZE = 8 * 1024;

/** A socket, plain or TLS, with exact reads. Errors of the socket never escape as events: they end the reads. */
export class Transport {
  #socket: Socket;
  readonly #clock: Clock;
  readonly #closed = Promise.withResolvers<void>();
  /** Received, but not asked for yet. */
  #held: Uint8Array[] = [];
  #wanted: Uint8Array | undefined;
  #filled = 0;
  #reading: ActiveReading | undefined;
  #end: { cause?: Error } | undefined;
  #corked = false;
  #discarding = false;
  #stopListening: () => void = () => {};
  /** When the last byte came, by the clock. */
  lastReceivedAt: number;

  constructor(socket: Socket, clock: Clock, receiver?: DirectReceiver) {
    this.#socket = socket;
    this.#clock = clock;
    this.lastReceivedAt = clock.now();
    receiver?.attach((bytes) => this.#receive(bytes), this.#landing);
    this.#listen(socket, receiver === undefined);
  }

  /** Resolves when the socket is closed for good. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get socket(): Socket {
    return this.#socket;
  }

  /** Bytes that came without having been asked for. */
  get unreadLength(): number {
    return this.#held.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  }

  /**
   * Runs one reading to its end; one at a time.
   *
   * @throws ConnectionEnded, or what the reading throws.
   */
  async read<T>(generator: Reading<T>): Promise<T> {
    if (this.#reading !== undefined) throw new Error('NBD transport: a reading is under way');
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#reading = { generator, resolve: resolve as (value: unknown) => void, reject };
    this.#advance();
    return promise;
  }

  /** Queues bytes for sending; those of one tick leave together. Failures show as the end of the connection. */
  write(bytes: Uint8Array): void {
    if (this.#socket.destroyed || !this.#socket.writable) return;
    if (!this.#corked) {
      this.#corked = true;
      const socket = this.#socket;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    this.#socket.write(bytes);
  }

  /** Resolves when the socket takes more bytes, or is closed. */
  async drained(): Promise<void> {
    if (!this.#socket.writableNeedDrain) return;
    const stop = new AbortController();
    try {
      await Promise.race([once(this.#socket, 'drain', { signal: stop.signal }), this.closed]);
    } finally {
      stop.abort();
    }
  }

  /**
   * Replaces the socket by one that wraps it (TLS). Bytes that came behind the last message were sent in clear by
   * someone who did not wait: they are refused.
   */
  async upgrade(wrap: (socket: Socket) => Promise<Socket>): Promise<void> {
    if (this.unreadLength > 0) throw violation('bytes in clear behind STARTTLS', 0, this.unreadLength);
    this.#stopListening();
    const secure = await wrap(this.#socket);
    this.#socket = secure;
    this.#listen(secure, true);
  }

  /** Ends our side after what was written; `closed` follows when the other side does the same. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once. Readings under way reject with `error`, or with `ConnectionEnded`. */
  destroy(error?: Error): void {
    this.#finish(error);
    this.#socket.destroy();
  }

  /** Waits for the other side to close, at most `ms`, then closes. Returns whether the other side did. */
  async awaitClose(ms: number): Promise<boolean> {
    if (this.#reading === undefined) {
      this.#discarding = true; // what still comes must be taken, or its end is not seen
      this.#held = [];
      this.#socket.resume();
    }
    const stop = new AbortController();
    try {
      const timer = this.#clock.sleep(ms, { signal: stop.signal }).then(
        () => false,
        () => false,
      );
      return await Promise.race([this.closed.then(() => true), timer]);
    } finally {
      stop.abort();
      this.destroy();
    }
  }

  #listen(socket: Socket, withData: boolean): void {
    const onData = (bytes: Uint8Array) => this.#receive(bytes);
    const onEnd = () => this.#finish();
    const onError = (error: Error) => this.#finish(error);
    const onClose = () => {
      this.#finish();
      this.#closed.resolve();
    };
    if (withData) socket.on('data', onData);
    socket.on('end', onEnd).on('error', onError).on('close', onClose);
    this.#stopListening = () => {
      socket.pause().off('data', onData).off('end', onEnd); // errors and the close are always listened to
    };
    if (socket.destroyed) onClose();
  }

  /** Where the next bytes may land without a copy: the rest of what is wanted, where that is worth it. */
  readonly #landing = (): Uint8Array | undefined => {
    const rest = this.#wanted?.subarray(this.#filled);
    return rest !== undefined && rest.byteLength >= SCRATCH_SIZE ? rest : undefined;
  };

  #receive(bytes: Uint8Array): void {
    this.lastReceivedAt = this.#clock.now();
    if (this.#discarding) return;
    const wanted = this.#wanted;
    if (
      wanted !== undefined &&
      bytes.buffer === wanted.buffer &&
      bytes.byteOffset === wanted.byteOffset + this.#filled
    ) {
      this.#filled += bytes.byteLength; // it has landed already
    } else if (
      wanted !== undefined &&
      this.#held.length === 0 &&
      bytes.byteLength <= wanted.byteLength - this.#filled
    ) {
      wanted.set(bytes, this.#filled);
      this.#filled += bytes.byteLength;
    } else this.#held.push(bytes);
    if (wanted === undefined || this.#filled === wanted.byteLength || this.#held.length > 0) this.#advance();
  }

  #advance(): void {
    while (this.#reading !== undefined) {
      if (this.#wanted === undefined || this.#filled === this.#wanted.byteLength) {
        if (!this.#step(this.#reading)) return;
      } else if (this.#held.length > 0) this.#take(this.#wanted);
      else {
        if (this.#end !== undefined) this.#abandon(this.#end);
        else if (this.#socket.isPaused()) this.#socket.resume();
        return;
      }
    }
    if (this.#held.length > 0) this.#socket.pause();
  }

  /** Lets the reading ask for its next bytes; false when it is over. */
  #step({ generator, resolve, reject }: ActiveReading): boolean {
    this.#wanted = undefined;
    this.#filled = 0;
    try {
      const step = generator.next();
      if (step.done !== true) {
        this.#wanted = step.value;
        return true;
      }
      this.#reading = undefined;
      resolve(step.value);
    } catch (error) {
      this.#reading = undefined;
      reject(error);
    }
    if (this.#held.length > 0) this.#socket.pause();
    return false;
  }

  #take(wanted: Uint8Array): void {
    const chunk = this.#held[0]!;
    const piece = chunk.subarray(0, wanted.byteLength - this.#filled);
    wanted.set(piece, this.#filled);
    this.#filled += piece.byteLength;
    if (piece.byteLength === chunk.byteLength) this.#held.shift();
    else this.#held[0] = chunk.subarray(piece.byteLength);
  }

  #abandon({ cause }: { cause?: Error }): void {
    const reading = this.#reading;
    const partial = this.#filled > 0;
    this.#reading = undefined;
    this.#wanted = undefined;
    reading?.generator.return(undefined);
    reading?.reject(cause instanceof BackupError ? cause : new ConnectionEnded(partial, cause));
  }

  #finish(cause?: Error): void {
    if (this.#end === undefined) this.#end = cause === undefined ? {} : { cause };
    this.#advance();
  }
}

/**
 * Connects a transport with the `onread` option of `net.connect`, which must be given before there is a transport:
 * on a plain socket the kernel then writes a reply's data into the caller's buffer.
 */
export class DirectReceiver {
  readonly #scratch = new Uint8Array(SCRATCH_SIZE);
  #receive: (bytes: Uint8Array) => void = () => {};
  #landing: () => Uint8Array | undefined = () => undefined;
  #next: Uint8Array = this.#scratch;

  /** For `net.connect({ onread })`. */
  readonly onread: OnReadOpts = {
    buffer: () => {
      this.#next = this.#landing() ?? this.#scratch;
      return this.#next;
    },
    callback: (length) => {
      const bytes = this.#next.subarray(0, length);
      // The scratch buffer is used again for the next bytes, so what is not taken at once must be copied.
      this.#receive(this.#next === this.#scratch ? bytes.slice() : bytes);
      return true;
    },
  };

  attach(receive: (bytes: Uint8Array) => void, landing: () => Uint8Array | undefined): void {
    this.#receive = receive;
    this.#landing = landing;
  }
}

/**
 * Runs one stage of a connection under a deadline: when it passes, `late()` gives the error and the transport is
 * destroyed. The signal does the same with its own reason.
 */
export async function within<T>(
  transport: { destroy(error?: Error): void },
  { clock, ms, signal, late }: { clock: Clock; ms: number; signal?: AbortSignal | undefined; late: () => Error },
  work: () => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  // A socket that is destroyed closes without an error, so what waits for it to be ready would wait for ever.
  const expired = Promise.withResolvers<never>();
  let error: Error | undefined;
  const timer = clock.sleep(ms, { signal: stop.signal }).then(
    () => {
      error = late();
      transport.destroy(error);
      expired.reject(error);
    },
    () => {}, // the work was in time
  );
  try {
    return await abortable(Promise.race([work(), expired.promise]), signal);
  } catch (failure) {
    if (signal?.aborted === true) {
      transport.destroy();
      throw signal.reason;
    }
    throw error ?? failure;
  } finally {
    stop.abort();
    await timer;
  }
}
