import type { TransferTime } from './report.ts';
import type { Stopwatch } from './stopwatch.ts';

type Side = 'host' | 'store';

/**
 * Tells on whom a transfer waits, at one seam between host and store: when the consumer asks for a chunk the source is
 * waited for, and when it has got one the consumer is, until it asks for the next.
 */
export class TransferMeter {
  /** That have crossed the network so far: told by whoever counts them. */
  bytes = 0;
  readonly #source: Side;
  readonly #sink: Side;
  readonly #stopwatch: Stopwatch;
  readonly #spent = { host: 0, store: 0 };
  #hashMs = 0;
  #side: Side | undefined;
  #since = 0;

  /** @param source - where the bytes come from; they go to the other side. */
  constructor(source: Side, stopwatch: Stopwatch) {
    this.#source = source;
    this.#sink = source === 'host' ? 'store' : 'host';
    this.#stopwatch = stopwatch;
  }

  /** What was measured so far, in whole milliseconds. */
  get time(): TransferTime {
    const { host, store } = this.#spent;
    return {
      hostMs: Math.round(host),
      hashMs: Math.round(this.#hashMs),
      storeMs: Math.round(Math.max(0, store - this.#hashMs)), // it hashes while it has the chunk
    };
  }

  /** For a store that tells how long it hashed, in milliseconds. */
  readonly onHashed = (ms: number): void => {
    this.#hashMs += ms;
  };

  /** The seam. @param onTaken - called when the consumer has done with a chunk, before it gets the next. */
  async *through<T>(chunks: AsyncIterable<T>, onTaken?: (chunk: T) => void): AsyncGenerator<T, void> {
    this.#waitFor(this.#source);
    try {
      for await (const chunk of chunks) {
        this.#waitFor(this.#sink);
        yield chunk;
        onTaken?.(chunk);
        this.#waitFor(this.#source);
      }
    } finally {
      this.#waitFor(this.#sink); // it has all, and is to make it last
    }
  }

  /** Waits for the work that a seam is part of, which ends the measurement. */
  async untilDone<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } finally {
      this.#waitFor(undefined);
    }
  }

  #waitFor(side: Side | undefined): void {
    const now = this.#stopwatch.now();
    if (this.#side !== undefined) this.#spent[this.#side] += now - this.#since;
    this.#side = side;
    this.#since = now;
  }
}
