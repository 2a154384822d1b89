import type { CallOptions } from '../core/index.ts';
import type { Block, BlockStream } from '../disk/index.ts';
import type { XvaCompression } from './constants.ts';
import { plainBytes } from './decompress.ts';
import { errorOf } from './findings.ts';
import type { OvaMetadata } from './ova-xml.ts';
import type { XvaDisk, XvaHead } from './xva-disks.ts';
import { type XvaEvent, XvaFault } from './xva-walk.ts';
import { createWalker, type XvaWalker } from './xva-walker.ts';

export interface ReadXvaStreamOptions extends CallOptions {
  /**
   * What errors call the stream.
   * @defaultValue nothing
   */
  readonly file?: string | undefined;
}

/** One disk and its data. */
export interface XvaDiskContents {
  /** What `ova.xml` says about it. */
  readonly disk: XvaDisk;
  /**
   * A block for each chunk with data, its checksum verified before it is given; what is left out is zero. What is not
   * read here is read over, and verified, when the next disk is asked for.
   */
  readonly blocks: BlockStream;
}

/** An archive that is being read in one forward pass: what its head says, and its disks to come. */
export interface XvaStream extends XvaHead, AsyncDisposable {
  /** Each disk in turn, to be iterated once. The archive was whole only if this ends without an error. */
  readonly contents: AsyncIterable<XvaDiskContents>;
  /** Gives up what was not read. */
  close(): Promise<void>;
}

/**
 * Reads an archive, plain, gzip or zstd, in one forward pass: its metadata when this resolves, then each disk as a
 * stream of blocks. Memory: a chunk, and the piece of the stream at hand.
 *
 * @throws FormatError `XVA_…` (from here and from the iterations), with the entry's name in `facts.entry`; `retryable`
 * where the stream ended too early. What follows the end of compressed data is not looked at.
 */
export async function readXvaStream(
  bytes: AsyncIterable<Uint8Array>,
  { file, signal }: ReadXvaStreamOptions = {},
): Promise<XvaStream> {
  const source = await plainBytes(bytes, file);
  const events = new EventReader(source.bytes, file, signal);
  try {
    const first = await events.next();
    if (first?.kind !== 'metadata') throw new Error('an archive begins with its metadata');
    return new Reading(events, source.compression, first);
  } catch (error) {
    await events.close();
    throw error;
  }
}

type Chunk = XvaEvent & { readonly kind: 'chunk' };

class Reading implements XvaStream {
  readonly metadata: OvaMetadata;
  readonly compression: XvaCompression;
  readonly disks: readonly XvaDisk[];
  readonly #events: EventReader;
  /** The first chunk of the next disk, met while the one before was read. */
  #held: Chunk | undefined;
  #taken = false;

  constructor(events: EventReader, compression: XvaCompression, { metadata, disks }: XvaEvent & { kind: 'metadata' }) {
    this.#events = events;
    this.compression = compression;
    this.metadata = metadata;
    this.disks = disks;
  }

  get contents(): AsyncIterable<XvaDiskContents> {
    return { [Symbol.asyncIterator]: () => this.#contents() };
  }

  close(): Promise<void> {
    return this.#events.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async *#contents(): AsyncGenerator<XvaDiskContents, void> {
    if (this.#taken) throw new TypeError('the disks of an archive that is streamed can be read once');
    this.#taken = true;
    try {
      for (const disk of this.disks) {
        const blocks = this.#blocks(disk);
        yield { disk, blocks };
        for await (const _ of blocks); // what was not read is read over
      }
      while ((await this.#events.next()) !== undefined);
    } finally {
      await this.close();
    }
  }

  /** Leaving it early does not end the archive: the rest is for whoever asks next. */
  #blocks(disk: XvaDisk): AsyncIterableIterator<Block, void> {
    const next = async (): Promise<IteratorResult<Block, void>> => {
      for (;;) {
        const event = this.#held ?? (await this.#events.next());
        this.#held = undefined;
        if (event?.kind !== 'chunk') return { done: true, value: undefined };
        if (event.disk.id !== disk.id) {
          this.#held = event;
          return { done: true, value: undefined };
        }
        if (event.length > 0) return { done: false, value: { offset: event.offset, data: event.data! } };
      }
    };
    return { next, [Symbol.asyncIterator]: () => this.#blocks(disk) };
  }
}

/** The events of a walk, pulled one after another. */
class EventReader {
  readonly #bytes: AsyncGenerator<Uint8Array, void>;
  readonly #file: string | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #queue: XvaEvent[] = [];
  #walker: XvaWalker | undefined;
  #fault: unknown;
  #ended = false;

  constructor(bytes: AsyncGenerator<Uint8Array, void>, file: string | undefined, signal: AbortSignal | undefined) {
    this.#bytes = bytes;
    this.#file = file;
    this.#signal = signal;
  }

  /** `undefined` at the end of a whole archive. */
  async next(): Promise<XvaEvent | undefined> {
    this.#walker ??= await createWalker('keep', (event) => this.#queue.push(event));
    for (;;) {
      const event = this.#queue.shift();
      if (event?.kind === 'bad') throw errorOf(event.finding, this.#file);
      if (event !== undefined) return event;
      if (this.#fault !== undefined) throw this.#fault;
      if (this.#ended) return undefined;
      await this.#advance(this.#walker);
    }
  }

  async close(): Promise<void> {
    this.#ended = true;
    await this.#bytes.return();
  }

  async #advance(walker: XvaWalker): Promise<void> {
    this.#signal?.throwIfAborted();
    const piece = await this.#bytes.next();
    try {
      if (piece.done === true) {
        this.#ended = true;
        walker.end();
      } else walker.give(piece.value);
    } catch (error) {
      // What was met before comes first.
      this.#fault = error instanceof XvaFault ? errorOf(error.finding, this.#file, error) : error;
    }
  }
}
