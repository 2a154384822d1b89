import { type InspectOptions, inspect } from 'node:util';
import { assertRange } from '../bytes/index.ts';
import { abortable, type CallOptions, createLog, shortText } from '../core/index.ts';
import { type Extent, joinExtents, type RangeOptions, rangeOf, type WritableDisk } from '../disk/index.ts';
import type { NbdOptions } from './client-options.ts';
import type { Command, NbdContextExtent, StatusExtent } from './command.ts';
import { BASE_ALLOCATION, COMMAND, COMMAND_FLAG, MAX_PAYLOAD, TRANSMISSION } from './constants.ts';
import { NbdError } from './errors.ts';
import { Job } from './job.ts';
import { fitRequestSize, planReads, type ReadPiece } from './read-plan.ts';
import { ConnectionPool } from './reconnect.ts';
import { type Settings, settingsOf } from './settings.ts';
import { extentsOfWindows, STATUS_WINDOW } from './status-windows.ts';

const log = createLog('nbd');

/** WRITE_ZEROES and TRIM carry no data, so they may be longer than a write; still within 32 bits, and aligned. */
const ZEROES_WINDOW = 1024 * 1024 * 1024;

/** How something is written. */
export interface NbdWriteOptions extends CallOptions {
  /**
   * Resolves when what was written is durable (FUA); where the server does not offer that, a flush follows the write.
   * @defaultValue `false`
   */
  readonly fua?: boolean | undefined;
}

/** A disk that an NBD server offers. */
export interface NbdDisk extends WritableDisk {
  /** The server takes no writes. */
  readonly readOnly: boolean;
  /** Whether the server tells which parts are zero; if not, all of the disk is told as data. */
  readonly hasExtents: boolean;
  /** The metadata contexts that the server tells, by name: of `base:allocation` and those that were asked for. */
  readonly contexts: readonly string[];
  /** Open at this moment. */
  readonly connectionCount: number;
  /**
   * What the server tells of a metadata context: `qemu:dirty-bitmap:<name>`, `qemu:allocation-depth` and the like, asked
   * for with the option `contexts`. Ascending, adjacent, covering exactly the range asked for.
   *
   * @throws NbdError `NBD_NOT_SUPPORTED` where the server has no such context or tells nothing of it.
   */
  contextExtents(context: string, options?: RangeOptions): AsyncIterable<NbdContextExtent>;
  write(data: Uint8Array, offset: number, options?: NbdWriteOptions): Promise<void>;
  writeZeroes(offset: number, length: number, options?: NbdWriteOptions): Promise<void>;
  /**
   * Tells the server that the content of the range is no longer needed. It is undefined afterwards.
   *
   * @throws NbdError `NBD_NOT_SUPPORTED` where the server has no TRIM.
   */
  trim(offset: number, length: number, options?: NbdWriteOptions): Promise<void>;
  /**
   * Tells the server that the range will be read soon.
   *
   * @throws NbdError `NBD_NOT_SUPPORTED` where the server has no CACHE.
   */
  cache(offset: number, length: number, options?: CallOptions): Promise<void>;
  /** Finishes what is under way, says goodbye on every connection and waits until the server has ended them. */
  close(): Promise<void>;
}

/**
 * Connects to one export of an NBD server, given as a URI (`nbd://`, `nbds://`, `nbd+unix://`, `nbds+unix://`), as
 * options, or as a URI and options that win over it. `signal` covers the connecting; each call has a signal of its own.
 *
 * Reads are cut into requests, sent ahead of their answers, and land in the caller's buffer. When a connection is lost,
 * what was outstanding is read over a new one. Writes that were under way then are not repeated, but rejected.
 *
 * @throws NbdError; `retryable` says whether another try is worth while. `NBD_NO_GREETING`: the server is full or
 * starting, wait longer.
 */
export async function connectNbd(target: string | NbdOptions, options: NbdOptions = {}): Promise<NbdDisk> {
  const settings = settingsOf(target, options);
  const signal = typeof target === 'string' ? options.signal : target.signal;
  return new Client(settings, await ConnectionPool.open(settings, signal));
}

class Client implements NbdDisk {
  readonly size: number;
  readonly readOnly: boolean;
  readonly hasExtents: boolean;
  readonly contexts: readonly string[];
  readonly #settings: Settings;
  readonly #pool: ConnectionPool;
  readonly #flags: number;
  readonly #alignment: number;
  readonly #requestSize: number;
  readonly #maximum: number;
  #closing: Promise<void> | undefined;

  constructor(settings: Settings, pool: ConnectionPool) {
    const { size, flags, blockSizes, contexts } = pool.session;
    this.#settings = settings;
    this.#pool = pool;
    this.#flags = flags;
    this.size = size;
    this.readOnly = (flags & TRANSMISSION.READ_ONLY) !== 0;
    this.contexts = [...contexts.keys()];
    this.hasExtents = contexts.has(BASE_ALLOCATION);
    this.#alignment = settings.profile === 'xenserver' ? 4096 : (blockSizes?.minimum ?? 512);
    const maximum = Math.min(blockSizes?.maximum ?? MAX_PAYLOAD, MAX_PAYLOAD);
    this.#maximum = fitRequestSize(maximum, this.#alignment, maximum);
    this.#requestSize = fitRequestSize(
      Math.max(settings.requestSize, blockSizes?.preferred ?? 0),
      this.#alignment,
      maximum,
    );
  }

  get connectionCount(): number {
    return this.#pool.connectionCount;
  }

  /** Without the name of the export: XenServer's holds a session. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { size, readOnly, connectionCount } = this;
    return shortText('Disk', { of: 'NBD', size, readOnly, connectionCount }, options);
  }

  async readInto(target: Uint8Array, offset: number, options: CallOptions = {}): Promise<void> {
    assertRange('NBD disk', this.size, offset, target.byteLength);
    const limits = { alignment: this.#alignment, requestSize: this.#requestSize, size: this.size };
    const pieces = [...planReads(offset, target.byteLength, limits)].map((piece) => ({
      piece,
      buffer: isWhole(piece) ? target.subarray(piece.at, piece.at + piece.take) : new Uint8Array(piece.length),
    }));
    await this.#runAll(
      pieces.map(({ piece, buffer }) => readCommand(piece, buffer)),
      options,
    );
    for (const { piece, buffer } of pieces) {
      if (!isWhole(piece)) target.set(buffer.subarray(piece.skip, piece.skip + piece.take), piece.at);
    }
  }

  extents(options: RangeOptions = {}): AsyncIterable<Extent> {
    const range = rangeOf('NBD disk', this.size, options);
    const ask = (offset: number, length: number, signal: AbortSignal) => this.#allocation(offset, length, { signal });
    return joinExtents(extentsOfWindows(range, ask, options.signal));
  }

  /** A server that cannot tell, or not now, is no reason to fail: all may be data. */
  async #allocation(offset: number, length: number, options: CallOptions): Promise<NbdContextExtent[]> {
    if (!this.hasExtents) return [];
    try {
      return await this.#status(BASE_ALLOCATION, offset, length, options);
    } catch (error) {
      if (!(error instanceof NbdError) || error.code !== 'NBD_REQUEST_FAILED') throw error;
      log.debug('block status failed, taken as data', { offset, length, errno: error.errno });
      return [];
    }
  }

  async *contextExtents(context: string, options: RangeOptions = {}): AsyncGenerator<NbdContextExtent, void> {
    const { offset, end } = rangeOf('NBD disk', this.size, options);
    if (!this.contexts.includes(context)) {
      const known = this.contexts.length === 0 ? 'none' : this.contexts.join(', ');
      const message = `the server does not tell ${context}, or it was not asked for: it tells ${known}`;
      throw this.#settings.fail('NBD_NOT_SUPPORTED', 'transmission', message);
    }
    for (let at = offset; at < end; ) {
      options.signal?.throwIfAborted();
      const known = await this.#status(context, at, Math.min(end - at, STATUS_WINDOW), options);
      if (known.length === 0) {
        const message = `the server tells nothing of ${context} at ${at}`;
        throw this.#settings.fail('NBD_NOT_SUPPORTED', 'transmission', message);
      }
      yield* known;
      at = known.at(-1)!.offset + known.at(-1)!.length;
    }
  }

  /** Extents of a context, within the range and from its start on; empty when the server does not tell. */
  async #status(context: string, offset: number, length: number, options: CallOptions): Promise<NbdContextExtent[]> {
    const from = offset - (offset % this.#alignment);
    const end = offset + length;
    const to = Math.min(Math.ceil(end / this.#alignment) * this.#alignment, this.size);
    const [extents = []] = await this.#runAll(
      [{ type: COMMAND.BLOCK_STATUS, flags: 0, offset: from, length: to - from, context }],
      options,
    );
    const cut: NbdContextExtent[] = [];
    let at = from;
    for (const { length: extent, flags } of extents) {
      const start = Math.max(at, offset);
      at += extent; // may pass the end: a server may tell more than it was asked for
      const until = Math.min(at, end);
      if (start < until) cut.push({ offset: start, length: until - start, flags });
    }
    return cut;
  }

  async write(data: Uint8Array, offset: number, options: NbdWriteOptions = {}): Promise<void> {
    this.#assertWritable('WRITE', TRANSMISSION.HAS_FLAGS);
    this.#assertAligned('WRITE', offset, data.byteLength);
    const commands = this.#cut(COMMAND.WRITE, offset, data.byteLength, this.#requestSize).map((command) => ({
      ...command,
      data: data.subarray(command.offset - offset, command.offset - offset + command.length),
    }));
    await this.#runWrites(commands, options);
  }

  async writeZeroes(offset: number, length: number, options: NbdWriteOptions = {}): Promise<void> {
    this.#assertWritable('WRITE_ZEROES', TRANSMISSION.SEND_WRITE_ZEROES);
    this.#assertAligned('WRITE_ZEROES', offset, length);
    await this.#runWrites(this.#cut(COMMAND.WRITE_ZEROES, offset, length, ZEROES_WINDOW), options);
  }

  async trim(offset: number, length: number, options: NbdWriteOptions = {}): Promise<void> {
    this.#assertWritable('TRIM', TRANSMISSION.SEND_TRIM);
    this.#assertAligned('TRIM', offset, length);
    await this.#runWrites(this.#cut(COMMAND.TRIM, offset, length, ZEROES_WINDOW), options);
  }

  async cache(offset: number, length: number, options: CallOptions = {}): Promise<void> {
    this.#assertOffered('CACHE', TRANSMISSION.SEND_CACHE);
    assertRange('NBD disk', this.size, offset, length);
    const from = offset - (offset % this.#alignment);
    const to = Math.min(Math.ceil((offset + length) / this.#alignment) * this.#alignment, this.size);
    await this.#runAll(this.#cut(COMMAND.CACHE, from, to - from, this.#maximum), options);
  }

  async flush(options: CallOptions = {}): Promise<void> {
    if (this.readOnly) return;
    this.#assertWritable('FLUSH', TRANSMISSION.SEND_FLUSH);
    await this.#runAll([{ type: COMMAND.FLUSH, flags: 0, offset: 0, length: 0 }], options);
  }

  close(): Promise<void> {
    this.#closing ??= this.#pool.close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** With FUA on each command, or a flush after them: durable either way. */
  async #runWrites(commands: readonly Command[], { fua = false, ...options }: NbdWriteOptions): Promise<void> {
    const byFlag = fua && (this.#flags & TRANSMISSION.SEND_FUA) !== 0;
    const byFlush = fua && !byFlag;
    if (byFlush) this.#assertOffered('FUA and no FLUSH', TRANSMISSION.SEND_FLUSH);
    await this.#runAll(
      byFlag ? commands.map((command) => ({ ...command, flags: COMMAND_FLAG.FUA })) : commands,
      options,
    );
    if (byFlush) await this.flush(options);
  }

  #cut(type: number, offset: number, length: number, size: number): Command[] {
    const commands: Command[] = [];
    for (let at = offset; at < offset + length; at += size) {
      commands.push({ type, flags: 0, offset: at, length: Math.min(size, offset + length - at) });
    }
    return commands;
  }

  /** Runs commands to their ends, or rejects with the first failure once no target is written to any more. */
  async #runAll(commands: readonly Command[], { signal }: CallOptions): Promise<(readonly StatusExtent[])[]> {
    signal?.throwIfAborted();
    if (this.#closing !== undefined) throw this.#settings.fail('NBD_CLOSED', 'disconnect', 'the disk was closed');
    const jobs: Job[] = [];
    const outcomes = commands.map((command) => {
      const { promise, resolve, reject } = Promise.withResolvers<readonly StatusExtent[]>();
      jobs.push(new Job(command, { done: resolve, failed: reject }));
      return promise;
    });
    this.#pool.submit(jobs);
    try {
      return await abortable(Promise.all(outcomes), signal);
    } catch (error) {
      await this.#pool.cancel(jobs);
      throw error;
    }
  }

  #assertWritable(what: string, flag: number): void {
    const { fail } = this.#settings;
    if (this.readOnly) throw fail('NBD_READ_ONLY', 'transmission', `${what}: the export is read-only`);
    this.#assertOffered(what, flag);
  }

  #assertOffered(what: string, flag: number): void {
    if ((this.#flags & flag) !== 0) return;
    throw this.#settings.fail('NBD_NOT_SUPPORTED', 'transmission', `the server has no ${what}`);
  }

  #assertAligned(what: string, offset: number, length: number): void {
    assertRange('NBD disk', this.size, offset, length);
    const minimum = this.#pool.session.blockSizes?.minimum ?? 1;
    if (offset % minimum === 0 && (length % minimum === 0 || offset + length === this.size)) return;
    throw new RangeError(`NBD ${what}: ${length} bytes at ${offset} are not aligned to ${minimum}`);
  }
}

function isWhole({ length, take }: ReadPiece): boolean {
  return length === take;
}

function readCommand({ offset, length }: ReadPiece, target: Uint8Array): Command {
  return { type: COMMAND.READ, flags: 0, offset, length, target };
}
