import { exactly, type SizedStream } from '../bytes/index.ts';
import { anySignal, BackupError, type CallOptions, type Clock, createLog, type HostError } from '../core/index.ts';
import type { DiskUse } from './disk-use.ts';
import { type ErrorPageWatch, watchForErrorPage } from './error-page.ts';
import type { ExchangeLog } from './exchange-log.ts';
import { isNetworkFailure, toBackupError } from './host-errors.ts';
import { createExchange, type Exchange, formatRequestHead, type ResponseHead } from './http-exchange.ts';
import type { HostGates } from './limits.ts';
import type { RecordReader } from './record-reader.ts';
import type { Ref, TaskRecord } from './records.ts';
import type { Session } from './session.ts';
import { type Tasks, taskFailure } from './tasks.ts';
import type { Timeouts } from './timeouts.ts';
import type { Target, Trust } from './trust.ts';

const log = createLog('host:transfer');

/** Where a disk lies on other hosts, the one asked sends us there. */
const MAX_REDIRECTS = 3;

/** How long a verdict may take that only explains a failure that we saw already, in milliseconds. */
const EXPLANATION_MS = 5000;

/** After the last byte of an export the host only detaches the disk; it tries that for five minutes. */
const MAX_EXPORT_VERDICT_MS = 600_000;

/** What transfers need of a connection. */
export interface TransferContext {
  readonly session: Session;
  readonly tasks: Tasks;
  readonly records: RecordReader;
  readonly diskUse: DiskUse;
  readonly trust: Trust;
  readonly timeouts: Timeouts;
  readonly gates: HostGates;
  readonly target: Target;
  readonly clock: Clock;
  readonly exchanges: ExchangeLog;
  /** Fires when the connection is closed. */
  readonly closing: AbortSignal;
  /** How to end each transfer that runs: closing waits for them, while the session still lives. */
  readonly running: Set<() => Promise<void>>;
}

/** A handler of the host. Sources: xapi-project/xen-api `ocaml/xapi/export_raw_vdi.ml`, `import.ml` and so on. */
export interface TransferRequest {
  readonly method: 'GET' | 'PUT';
  /** `/export_raw_vdi` … */
  readonly path: string;
  /** Beside session and task. */
  readonly query: Readonly<Record<string, string>>;
  /** For people: in the host's list of tasks, and in our errors. */
  readonly what: string;
  readonly contentLength?: number | undefined;
  /** The disks that the host attaches for it. */
  readonly disks?: readonly Ref[] | undefined;
}

/** A request that the host answered with 200, which proves nothing yet. */
interface Transfer {
  readonly doing: string;
  readonly exchange: Exchange;
  readonly head: ResponseHead;
  readonly signal: AbortSignal;
  /** The task's verdict. */
  verdict(timeoutMs: number): Promise<TaskRecord>;
  /** The verdict, if it is a failure and comes soon: the reason behind what we saw. */
  explanation(): Promise<HostError | undefined>;
  /** Closes the connection, cancels a task that still runs, destroys it, awaits the disk's release, gives the slot back. */
  finish(): Promise<void>;
}

async function begin(context: TransferContext, request: TransferRequest, given?: AbortSignal): Promise<Transfer> {
  const { session, tasks, timeouts, gates } = context;
  const signal = anySignal(given, context.closing) ?? context.closing;
  const doing = `${session.label}: ${request.what}`;
  const release = await gates.transfers.enter({ signal });
  const letGo = (request.disks ?? []).map((vdi) => context.diskUse.begin(vdi));
  let exchange: Exchange | undefined;
  let task: Ref | undefined;
  let ended = false;
  const onAbort = () => exchange?.destroy();
  signal.addEventListener('abort', onAbort, { once: true });

  async function verdict(timeoutMs: number): Promise<TaskRecord> {
    const record = await tasks.ended(task!, { signal, timeoutMs });
    ended = true;
    return record;
  }

  async function explanation(): Promise<HostError | undefined> {
    try {
      const record = await verdict(Math.min(EXPLANATION_MS, timeouts.cleanUpMs));
      return taskFailure(record, doing, session, 'TRANSFER_FAILED');
    } catch (error) {
      signal.throwIfAborted();
      log.debug('no explanation', { code: (error as { code?: string }).code });
      return undefined;
    }
  }

  let finished: Promise<void> | undefined;
  const finish = () => {
    finished ??= (async () => {
      signal.removeEventListener('abort', onAbort);
      exchange?.destroy();
      if (task !== undefined) await (ended ? tasks.destroy(task) : tasks.cancelAndDestroy(task));
      await Promise.all(letGo.map((end) => end()));
      context.running.delete(finish);
      release();
    })();
    return finished;
  };
  context.running.add(finish);

  try {
    task = await tasks.create(`xen-backup-sdk: ${request.what}`, request.path);
    for (let redirects = 0, target = context.target; ; redirects++) {
      signal.throwIfAborted();
      const socket = await context.trust.connect(target, { timeoutMs: timeouts.connectMs, signal });
      exchange = createExchange(socket, doing);
      signal.throwIfAborted();
      // In the query, not in a cookie: the host repeats only that when it sends us elsewhere.
      const query = { ...request.query, session_id: await session.reference(), task_id: task };
      await exchange.write(formatRequestHead({ ...request, query, host: target.host }), timeouts.idleMs);
      const head = await exchange.response(timeouts.firstByteMs);
      log.debug('answered', { path: request.path, host: target.host, status: head.status });
      const { method, path } = request;
      context.exchanges.request({
        method,
        path,
        query,
        status: head.status,
        headers: Object.fromEntries(head.headers),
      });
      if (head.status === 200) return { doing, exchange, head, signal, verdict, explanation, finish };
      exchange.destroy();
      if (head.status !== 302 || redirects === MAX_REDIRECTS) {
        throw (
          (await explanation()) ??
          new BackupError('TRANSFER_FAILED', `${doing}: expected HTTP status 200, got ${head.status}`, {
            retryable: head.status === 503,
            facts: { status: head.status },
          })
        );
      }
      target = await redirected(context, target, request.path, head.headers.get('location'));
    }
  } catch (error) {
    await finish();
    signal.throwIfAborted();
    throw toBackupError(error, doing, session.scrub);
  }
}

/**
 * Where the host sends us: to a host of its own pool, with our query.
 *
 * @throws BackupError `HOST_ANSWER_INVALID` for anywhere else
 */
async function redirected(
  { records, session }: TransferContext,
  from: Target,
  path: string,
  location: string | undefined,
): Promise<Target> {
  const url = URL.parse(location ?? '');
  if (url === null || url.protocol !== from.protocol || url.pathname !== path) {
    throw new BackupError(
      'HOST_ANSWER_INVALID',
      `${session.label}: sent elsewhere, but not to ${path} of another host`,
    );
  }
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const hosts = await records.list('host');
  if (host !== from.host && !hosts.some((member) => member.address === host || member.hostname === host)) {
    throw new BackupError('HOST_ANSWER_INVALID', `${session.label}: sent to ${host}, which is no host of the pool`);
  }
  return {
    protocol: from.protocol,
    host,
    port: url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port),
  };
}

export interface DownloadOptions extends CallOptions {
  /** What the body must have, in bytes, where that is known. */
  readonly length?: number | undefined;
}

export interface Download {
  readonly chunks: AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Starts an export. The chunks end only when the host's task has succeeded.
 *
 * @throws HostError `TRANSFER_FAILED`, with the host's code
 * @throws BackupError `TRANSFER_CUT`, `TASK_VANISHED`, `TIMEOUT`, and what connecting throws
 */
export async function download(
  context: TransferContext,
  request: TransferRequest,
  { signal, length }: DownloadOptions = {},
): Promise<Download> {
  const transfer = await begin(context, request, signal);
  const promised = transfer.head.headers.get('content-length');
  const expected = length ?? (promised === undefined ? undefined : Number(promised));
  const { timeouts } = context;
  const seen = watchForErrorPage();
  let taken = false;

  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    if (taken) throw new TypeError(`${transfer.doing}: the chunks can be read once`);
    taken = true;
    try {
      yield* body(context, transfer, seen);
      const short = expected !== undefined && seen.length < expected;
      if (short) throw (await transfer.explanation()) ?? cut(transfer.doing, seen.length, expected);
      const timeoutMs = Math.min(timeouts.verdictMs, MAX_EXPORT_VERDICT_MS);
      const record = await verdictOn(transfer, timeoutMs, () => cut(transfer.doing, seen.length, expected));
      const failure = taskFailure(record, transfer.doing, context.session, 'TRANSFER_FAILED');
      if (failure !== undefined) throw failure;
      checkEnd(transfer.doing, seen, expected);
    } catch (error) {
      transfer.signal.throwIfAborted();
      if (!isNetworkFailure(error)) throw toBackupError(error, transfer.doing, context.session.scrub);
      throw (await transfer.explanation()) ?? cut(transfer.doing, seen.length, expected);
    } finally {
      await transfer.finish();
    }
  }

  return { chunks: { [Symbol.asyncIterator]: chunks }, close: transfer.finish };
}

async function* body(
  context: TransferContext,
  transfer: Transfer,
  seen: ErrorPageWatch,
): AsyncGenerator<Uint8Array, void> {
  const { firstByteMs, idleMs } = context.timeouts;
  let lookAtStart = true;
  for (;;) {
    const chunk = await transfer.exchange.read(seen.length === 0 ? firstByteMs : idleMs);
    if (chunk === undefined) return;
    seen.see(chunk);
    if (lookAtStart && seen.atStart()) {
      // A disk may begin with these bytes, too: the task knows.
      lookAtStart = false;
      const failure = await transfer.explanation();
      if (failure !== undefined) throw failure;
    }
    yield chunk;
  }
}

/** The task succeeded; is the body what it should be? */
function checkEnd(doing: string, seen: ErrorPageWatch, expected: number | undefined): void {
  if (expected === undefined ? !seen.atEnd() : seen.length === expected) return;
  throw new BackupError(
    'TRANSFER_FAILED',
    `${doing}: the host wrote more than the export: an error page, or another size`,
    {
      retryable: true,
      facts: { received: seen.length, expected },
    },
  );
}

function cut(doing: string, received: number, expected?: number): BackupError {
  const of = expected === undefined ? '' : ` of ${expected}`;
  return new BackupError('TRANSFER_CUT', `${doing}: the connection ended after ${received}${of} bytes`, {
    retryable: true,
    facts: { received, expected },
  });
}

export interface UploadOptions extends CallOptions {
  /** Called with the bytes sent so far. */
  readonly onSent?: ((bytes: number) => void) | undefined;
  /** The host stops reading before the end of an archive: success then does not mean that it took all. */
  readonly mayLeaveRest?: boolean | undefined;
}

/**
 * Sends a body of known length and waits for the verdict.
 *
 * @returns what the task returned, as the host wrote it
 * @throws as {@link download}
 */
export async function upload(
  context: TransferContext,
  request: Omit<TransferRequest, 'method' | 'contentLength'>,
  stream: SizedStream,
  { signal, onSent, mayLeaveRest = false }: UploadOptions = {},
): Promise<string> {
  if (!Number.isSafeInteger(stream.length) || stream.length < 0) {
    throw new RangeError(`${request.what}: expected a length in bytes, got ${stream.length}`);
  }
  // The host answers before it reads, so a 302 comes before anything of the stream is used.
  const transfer = await begin(context, { ...request, method: 'PUT', contentLength: stream.length }, signal);
  const { exchange, doing } = transfer;
  const { timeouts } = context;
  try {
    const reply = watchReply(exchange);
    let sent = 0;
    let broken = false;
    for await (const chunk of exactly(stream.length, stream.chunks, request.what)) {
      transfer.signal.throwIfAborted();
      if (reply.ended) broken = true;
      else broken = !(await sendUnlessBroken(exchange, chunk, timeouts.idleMs));
      if (broken) break; // the verdict says whether that is a failure
      sent += chunk.byteLength;
      onSent?.(sent);
    }
    transfer.signal.throwIfAborted();
    const all = sent === stream.length;
    const record = await verdictOn(transfer, all ? timeouts.verdictMs : timeouts.cleanUpMs, () =>
      cut(doing, sent, stream.length),
    );
    const failure = taskFailure(record, doing, context.session, 'TRANSFER_FAILED');
    if (failure !== undefined) throw failure;
    if (!all && !mayLeaveRest) throw cut(doing, sent, stream.length);
    return record.result;
  } catch (error) {
    transfer.signal.throwIfAborted();
    throw error;
  } finally {
    await transfer.finish();
  }
}

/** False when the connection is gone, which is not by itself a failure. */
async function sendUnlessBroken(exchange: Exchange, chunk: Uint8Array, idleMs: number): Promise<boolean> {
  try {
    await exchange.write(chunk, idleMs);
    return true;
  } catch (error) {
    if (isNetworkFailure(error)) return false;
    throw error;
  }
}

/** The verdict; where a transfer broke and the host has none, what we saw. */
async function verdictOn(transfer: Transfer, timeoutMs: number, otherwise: () => BackupError): Promise<TaskRecord> {
  try {
    return await transfer.verdict(timeoutMs);
  } catch (error) {
    if (error instanceof BackupError && error.code === 'TIMEOUT') throw otherwise();
    throw error;
  }
}

/** Reads and forgets what the host writes after its 200: only the end matters, the task says why. */
function watchReply(exchange: Exchange): { readonly ended: boolean } {
  const state = { ended: false };
  void (async () => {
    try {
      while ((await exchange.read()) !== undefined);
    } catch (error) {
      log.debug('the answer broke off', { code: (error as { code?: string }).code });
    }
    state.ended = true;
  })();
  return state;
}
