import type { OnReadOpts, Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';

/** TLS gives up to so many bytes at a time; a piece with less room is full. In bytes, as all of these. */
const RECORD = 16 * 1024;
/** What is handed on at once, at most, in bytes. */
const PIECE = 512 * 1024;
/** The same where the memory of each is new: it is cheap in small pieces only. */
const OWN_PIECE = 64 * 1024;
/** So many bytes wait for their reader before nothing more is received. */
const MOST_WAITING = 1024 * 1024;

/** Bytes for the reader. The last ones of a piece of memory set it free. */
interface Waiting {
  readonly bytes: Uint8Array;
  readonly memory?: Uint8Array<ArrayBuffer>;
}

/**
 * Receives a body in large pieces: what is done with each piece, on its way to a file, costs more than what is done
 * with its bytes. A socket that is opened with `onread` lands them in the memory that is handed on. One that a proxy's
 * tunnel has made was there before this was: its bytes come as events.
 */
export class Receiver {
  readonly #reuseMemory: boolean;
  readonly #size: number;
  readonly #waiting: Waiting[] = [];
  #waitingBytes = 0;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  #landing: Uint8Array<ArrayBuffer>;
  /** In `#landing`: from where on, and up to where, nobody has taken what is there. */
  #start = 0;
  #filled = 0;
  /** The memory of the piece that the reader has, where nothing else is in it. */
  #lent: Uint8Array<ArrayBuffer> | undefined;
  #socket: Socket | undefined;
  #end: { readonly error?: Error } | undefined;
  #wake = () => {};

  /** @param reuseMemory - the memory of a piece is used again once the next one is asked for; else it is the caller's */
  constructor(reuseMemory: boolean) {
    this.#reuseMemory = reuseMemory;
    this.#size = reuseMemory ? PIECE : OWN_PIECE;
    this.#landing = new Uint8Array(this.#size);
  }

  /** For the options of `connect`. */
  readonly onread: OnReadOpts = {
    buffer: () => this.#landing.subarray(this.#filled),
    callback: (length) => {
      this.#filled += length;
      if (this.#size - this.#filled < RECORD) this.#turnOver();
      this.#wake();
      return this.#waitingBytes < MOST_WAITING; // received on when the reader takes a piece
    },
  };

  /** To be called as soon as the socket is there. Its errors are from now on seen here alone. */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket
      .on('data', (bytes: Uint8Array) => {
        this.#push({ bytes });
        if (this.#waitingBytes >= MOST_WAITING) socket.pause();
        this.#wake();
      })
      .on('end', () => this.#finish())
      .on('error', (error) => this.#finish(error))
      .on('close', () => this.#finish(cutOff()));
    if (socket.destroyed) this.#finish(cutOff()); // it may have told so before anybody listened
  }

  /**
   * The next bytes; `undefined` at the end. Rejects with the error that ended the connection, or with `ECONNRESET` where
   * it was closed before its end.
   */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#lent !== undefined) this.#free.push(this.#lent);
    this.#lent = undefined;
    await this.#arrival();
    const { bytes, memory } = this.#shift() ?? { bytes: this.#begun(), memory: undefined };
    if (bytes.byteLength === 0) {
      if (this.#end?.error !== undefined) throw this.#end.error;
      return undefined;
    }
    if (this.#reuseMemory) this.#lent = memory;
    this.#socket?.resume();
    return bytes;
  }

  /** Resolves when there is something for the reader, or nothing more will be. */
  async #arrival(): Promise<void> {
    while (this.#waiting.length === 0 && this.#end === undefined) {
      if (this.#start < this.#filled) return await setImmediate(); // what arrives in this turn of the event loop comes along
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Of the memory that more lands in. The caller may give his own away with all that is in it: he gets a copy. */
  #begun(): Uint8Array {
    const bytes = this.#taken();
    return this.#reuseMemory ? bytes : bytes.slice();
  }

  #taken(): Uint8Array {
    const bytes = this.#landing.subarray(this.#start, this.#filled);
    this.#start = this.#filled;
    return bytes;
  }

  #turnOver(): void {
    this.#push({ bytes: this.#taken(), memory: this.#landing });
    this.#landing = this.#free.pop() ?? new Uint8Array(this.#size);
    this.#start = 0;
    this.#filled = 0;
  }

  #push(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#waitingBytes += waiting.bytes.byteLength;
  }

  #shift(): Waiting | undefined {
    const waiting = this.#waiting.shift();
    this.#waitingBytes -= waiting?.bytes.byteLength ?? 0;
    return waiting;
  }

  #finish(error?: Error): void {
    this.#end ??= error === undefined ? {} : { error };
    this.#wake();
  }
}

function cutOff(): Error {
  return Object.assign(new Error('closed before the end'), { code: 'ECONNRESET' });
}
