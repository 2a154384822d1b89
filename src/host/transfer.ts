import { anySignal, BackupError, type CallOptions, type Clock, createLog, type HostError } from '../core/index.ts';
import type { DiskUse } from './disk-use.ts';
import type { ExchangeLog } from './exchange-log.ts';
import type { ExportMemoryOptions } from './host.ts';
import { toBackupError } from './host-errors.ts';
import { createExchange, type Exchange, formatRequestHead, type ResponseHead } from './http-exchange.ts';
import type { HostGates } from './limits.ts';
import { Receiver } from './receiver.ts';
import type { RecordReader } from './record-reader.ts';
import type { Ref, TaskRecord } from './records.ts';
import type { Session } from './session.ts';
import { settledWithin } from './settled-within.ts';
import { type Tasks, taskFailure } from './tasks.ts';
import type { Timeouts } from './timeouts.ts';
import type { Target, Trust } from './trust.ts';

const log = createLog('host:transfer');

/** Where a disk lies on other hosts, the one asked sends us there. */
const MAX_REDIRECTS = 3;

/** How long a verdict may take that only explains a failure that we saw already, in milliseconds. */
const EXPLANATION_MS = 5000;

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
export interface Transfer {
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

/** Takes a slot, makes a task, asks, follows redirects. */
export async function beginTransfer(
  context: TransferContext,
  request: TransferRequest,
  { signal: given, reuseMemory = false }: CallOptions & ExportMemoryOptions = {},
): Promise<Transfer> {
  const { session, tasks, timeouts, gates } = context;
  const late = new AbortController();
  const signal = anySignal(given, context.closing, late.signal) ?? context.closing;
  const doing = `${session.label}: ${request.what}`;
  const release = await (request.method === 'GET' ? gates.exports : gates.imports).enter({ signal });
  const timer = setTimeout(() => {
    const message = `${doing}: not done within ${timeouts.totalMs} ms`;
    late.abort(new BackupError('TIMEOUT', message, { retryable: true }));
  }, timeouts.totalMs).unref();
  const letGo = (request.disks ?? []).map((vdi) => context.diskUse.begin(vdi));
  let exchange: Exchange | undefined;
  let task: Ref | undefined;
  let ended = false;
  /** Has a host been asked that may be working for us? One that sends us elsewhere has not even looked at the task. */
  let asked = false;
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

  const begun = Promise.withResolvers<void>();
  let finished: Promise<void> | undefined;
  const finish = () => {
    finished ??= (async () => {
      clearTimeout(timer);
      exchange?.destroy();
      // The task that is being made, and the socket that is being opened, are ours to end, too.
      await settledWithin(begun.promise, timeouts.cleanUpMs, context.clock);
      signal.removeEventListener('abort', onAbort);
      exchange?.destroy();
      if (task !== undefined) await (ended || !asked ? tasks.destroy(task) : tasks.cancelAndDestroy(task));
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
      const receiver = new Receiver(reuseMemory);
      const { onread } = receiver;
      const socket = await context.trust.connect(target, { timeoutMs: timeouts.connectMs, onread, signal });
      exchange = createExchange(socket, receiver, doing);
      signal.throwIfAborted();
      // In the query, not in a cookie: the host repeats only that when it sends us elsewhere.
      const query = { ...request.query, session_id: await session.reference(), task_id: task };
      asked = true;
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
      if (head.status === 200) {
        begun.resolve();
        return { doing, exchange, head, signal, verdict, explanation, finish };
      }
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
      asked = false;
      target = await redirected(context, target, request.path, head.headers.get('location'));
    }
  } catch (error) {
    begun.resolve();
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

/** The verdict; where a transfer broke and the host has none, what we saw. */
export async function verdictOn(
  transfer: Transfer,
  timeoutMs: number,
  otherwise: () => BackupError,
): Promise<TaskRecord> {
  try {
    return await transfer.verdict(timeoutMs);
  } catch (error) {
    if (error instanceof BackupError && error.code === 'TIMEOUT') throw otherwise();
    throw error;
  }
}

/** What is said when a transfer broke and the host has nothing to say about it. */
export function cut(doing: string, received: number, expected?: number): BackupError {
  const of = expected === undefined ? '' : ` of ${expected}`;
  return new BackupError('TRANSFER_CUT', `${doing}: the connection ended after ${received}${of} bytes`, {
    retryable: true,
    facts: { received, expected },
  });
}
