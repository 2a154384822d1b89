import { availableParallelism } from 'node:os';
import type { Transform } from 'node:stream';
import { type ByteSource, type FileSource, openFileSource, readBytes, sourceChunks } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { checkInThreads } from './check-in-threads.ts';
import type { XvaCompression } from './constants.ts';
import { compressionError, compressionOf, createDecompressor, isDecoderError, MAGIC_LENGTH } from './decompress.ts';
import type { OvaMetadata } from './ova-xml.ts';
import { type XvaReport, XvaReporter } from './xva-report.ts';
import { createWalker, type XvaWalker } from './xva-walker.ts';

export interface CheckXvaOptions extends CallOptions {
  /**
   * How many threads of their own read and hash a large archive that is a file and not compressed; 1: none, all is done
   * where the call is made, as it is for any other archive.
   * From 1 to 64.
   * @defaultValue the number of processors, at most 3
   */
  readonly threads?: number | undefined;
}

/** For more, memory would be what is missing: each takes 15 MiB. */
const MOST_THREADS = 3;
/** What is checked sooner than threads are started, in bytes. */
const SMALL = 64 * 1024 * 1024;

/**
 * Reads an archive, compressed or not, from its start to its end, and tells whether a host would take it: its
 * structure, every checksum, every disk to its end, and the archive's own end. A broken archive does not make it
 * reject, only a failure to read does. A source stays open. Memory: some 15 MiB for each thread, whatever the size.
 *
 * @throws RangeError where `threads` is not a whole number from 1 to 64.
 */
export async function checkXva(source: string | ByteSource, options: CheckXvaOptions = {}): Promise<XvaReport> {
  const { threads = Math.min(availableParallelism(), MOST_THREADS) } = options;
  if (!Number.isInteger(threads) || threads < 1 || threads > 64) {
    throw new RangeError(`threads: ${threads}, expected from 1 to 64`);
  }
  if (typeof source !== 'string') return checkSource(source, options);
  await using file = await openFileSource(source);
  const inThreads =
    threads > 1 && file.size >= SMALL && (await isPlain(file, options))
      ? await checkInThreads(file, threads, options.signal)
      : undefined;
  return inThreads ?? (await checkSource(file, options));
}

async function isPlain(file: FileSource, options: CallOptions): Promise<boolean> {
  return compressionOf(await readBytes(file, 0, MAGIC_LENGTH, options)) === 'none';
}

async function checkSource(source: ByteSource, options: CallOptions): Promise<XvaReport> {
  const checker = await createChecker();
  for await (const piece of sourceChunks(source, { ...options, reuseMemory: true })) {
    const waiting = checker.give(piece);
    if (waiting !== undefined) await waiting;
  }
  return checker.end();
}

/** Bytes that are checked while they pass. */
export interface CheckingXva {
  /** The bytes that were given, unchanged, to be iterated once. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /**
   * Resolves when `bytes` has ended or was left, which is then a finding; rejects where the source fails. Unless `bytes`
   * is iterated it stays pending.
   */
  readonly report: Promise<XvaReport>;
  /** As far as `ova.xml` has passed. */
  readonly metadata: OvaMetadata | undefined;
}

/**
 * Checks an archive, compressed or not, while it flows to somewhere else: the same as {@link checkXva}, without reading
 * it again. The bytes flow on whatever is wrong with them; each is checked before it is handed on.
 */
export function checkingXva(bytes: AsyncIterable<Uint8Array>, { signal }: CallOptions = {}): CheckingXva {
  const { promise: report, resolve, reject } = Promise.withResolvers<XvaReport>();
  report.catch(() => {}); // not swallowed: whoever iterates `bytes` sees the same
  let checker: XvaChecker | undefined;
  async function* passing(): AsyncGenerator<Uint8Array, void> {
    try {
      checker = await createChecker();
      try {
        for await (const piece of bytes) {
          signal?.throwIfAborted();
          const waiting = checker.give(piece);
          if (waiting !== undefined) await waiting;
          yield piece;
        }
      } finally {
        resolve(await checker.end());
      }
    } catch (error) {
      reject(error);
      throw error;
    }
  }
  return {
    bytes: { [Symbol.asyncIterator]: passing },
    report,
    get metadata() {
      return checker?.metadata;
    },
  };
}

interface XvaChecker {
  readonly metadata: OvaMetadata | undefined;
  /** Takes the next bytes of the archive; they are not looked at any more when what this returns has resolved. */
  give(piece: Uint8Array): Promise<void> | undefined;
  end(): Promise<XvaReport>;
}

async function createChecker(): Promise<XvaChecker> {
  const reporter = new XvaReporter();
  const walker = await createWalker('hash', (event) => reporter.see(event));
  let length = 0;
  let start: number[] = [];
  let compression: XvaCompression | undefined;
  let decoder: Decoder | undefined;

  const walk = (work: () => void) => {
    try {
      work();
    } catch (error) {
      reporter.fault(error);
    }
  };
  const decide = () => {
    compression = compressionOf(Uint8Array.from(start));
    if (compression !== 'none') decoder = new Decoder(createDecompressor(compression), walker, walk);
    return Uint8Array.from(start);
  };
  const pass = (piece: Uint8Array): Promise<void> | undefined => {
    if (decoder !== undefined) return decoder.give(piece);
    walk(() => walker.give(piece));
    return undefined;
  };

  return {
    get metadata() {
      return reporter.metadata;
    },
    give(piece) {
      length += piece.byteLength;
      if (compression !== undefined) return pass(piece);
      const missing = MAGIC_LENGTH - start.length;
      start = [...start, ...piece.subarray(0, missing)];
      if (start.length < MAGIC_LENGTH) return undefined;
      const waiting = pass(decide());
      const rest = piece.subarray(missing);
      return waiting === undefined ? pass(rest) : waiting.then(() => pass(rest));
    },
    async end() {
      if (compression === undefined) await pass(decide());
      if (decoder === undefined) walk(() => walker.end());
      else {
        const error = await decoder.end();
        if (isDecoderError(error)) {
          reporter.add('XVA_COMPRESSION', walker.offset, `whole ${compression} data`, error.message);
        } else if (error !== undefined) throw compressionError(error, compression!);
        else if (decoder.taken < length) {
          const actual = `${length - decoder.taken} more bytes`;
          reporter.add('XVA_TRAILING_DATA', walker.offset, `nothing behind the ${compression} data`, actual);
        }
      }
      return reporter.report({ compression: compression!, length, plainLength: plainLengthOf(decoder, length) });
    },
  };
}

function plainLengthOf(decoder: Decoder | undefined, length: number): number {
  return decoder === undefined ? length : decoder.plainLength;
}

/** A decompressor whose output is walked through while its input is given. */
class Decoder {
  plainLength = 0;
  readonly #stream: Transform & { bytesWritten: number };
  readonly #closed = Promise.withResolvers<void>();
  #ended = false;
  #error: unknown;

  constructor(stream: Transform & { bytesWritten: number }, walker: XvaWalker, walk: (work: () => void) => void) {
    this.#stream = stream;
    stream.on('data', (piece: Uint8Array) => {
      this.plainLength += piece.byteLength;
      walk(() => walker.give(piece));
    });
    stream.on('end', () => {
      this.#ended = true;
      walk(() => walker.end());
      this.#closed.resolve();
    });
    stream.on('error', (error) => {
      this.#error = error;
      this.#closed.resolve();
    });
  }

  /** How many compressed bytes were used: less than were given where something follows the compressed data. */
  get taken(): number {
    return this.#stream.bytesWritten;
  }

  /** Resolves when the bytes are decompressed and what came of them was walked through. */
  async give(piece: Uint8Array): Promise<void> {
    if (this.#ended || this.#error !== undefined || piece.byteLength === 0) return;
    const written = new Promise<void>((resolve) => this.#stream.write(piece, () => resolve()));
    await Promise.race([written, this.#closed.promise]);
  }

  /** What went wrong, if anything. */
  async end(): Promise<unknown> {
    if (!this.#ended && this.#error === undefined) this.#stream.end();
    await this.#closed.promise;
    return this.#error;
  }
}
