import { Agent, type RequestOptions, request as requestHttps } from 'node:https';
import type { Duplex } from 'node:stream';
import { BackupError, createLog } from '../core/index.ts';
import type { ExchangeLog } from './exchange-log.ts';
import { type HostLimits, hostGates } from './limits.ts';
import type { XapiTarget, XapiTransport } from './replacements/transports.ts';
import { formatCall, parseAnswer, Refusal } from './rpc-envelope.ts';
import type { Timeouts } from './timeouts.ts';
import type { Target, Trust } from './trust.ts';

const log = createLog('host:rpc');

/**
 * The longest answer that is read, in bytes: above the bitmap of a 16 TiB disk (43 MB) and the records of a large pool.
 * While it is parsed, memory holds an answer up to three times. It must fit into a string, which ends below 512 MiB.
 */
const MAX_ANSWER_BYTES = 256 * 2 ** 20;

/** An event query waits up to a minute by design, and holds no slot meanwhile. */
const EVENT_QUERY = 'event.from';

const API_VERSION = '1.1';

export interface RpcOptions {
  readonly trust: Trust;
  readonly timeouts: Timeouts;
  readonly limits?: HostLimits | undefined;
  /** Who we are, in the host's list of sessions. */
  readonly originator: string;
  readonly exchanges: ExchangeLog;
}

/** The calls of one connection: keeps sockets, whose certificates were checked, for the next call. */
export interface Rpc {
  /** A transport for `xen-api`, which asks for another one when a member names its coordinator. */
  transportTo(target: XapiTarget): XapiTransport;
  /** Waits, at most `ms`, until no call but an event query is in flight. */
  settle(ms: number): Promise<void>;
  /** Ends what is in flight with `reason`; later calls, such as the logout, are sent. */
  interrupt(reason: Error): void;
  /** Ends the event query and closes all sockets. */
  close(): void;
}

/** @throws TypeError where the protocol is neither `https:` nor `http:`. */
export function parseTarget(target: XapiTarget): Target {
  const { protocol } = target;
  if (protocol !== 'https:' && protocol !== 'http:') throw new TypeError(`expected https, got ${protocol}`);
  const port =
    target.port === undefined || target.port === '' ? (protocol === 'https:' ? 443 : 80) : Number(target.port);
  return { protocol, host: target.hostname.replace(/^\[|\]$/g, ''), port };
}

export function createRpc({ trust, timeouts, limits, originator, exchanges }: RpcOptions): Rpc {
  /** Ends what is in flight and what is connecting. */
  let stop = new AbortController();
  let closed = false;
  const inFlight = new Set<Promise<unknown>>();
  let lastId = 0;

  const agent = new CheckedAgent(trust, timeouts.connectMs, () => stop.signal);

  async function send(target: Target, method: string, params: readonly unknown[]): Promise<unknown> {
    const body = formatCall(method, params, ++lastId);
    const started = Date.now();
    try {
      const result = parseAnswer(await post(target, method, body, stop.signal), method);
      exchanges.call(method, params, started, { result });
      return result;
    } catch (error) {
      exchanges.call(method, params, started, { error: describeFailure(error) });
      throw error;
    } finally {
      log.debug(method, { host: target.host, ms: Date.now() - started });
    }
  }

  function post(target: Target, method: string, body: Uint8Array, signal: AbortSignal): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => {
      request.destroy(
        new BackupError('TIMEOUT', `${method}: no answer within ${timeouts.callMs} ms`, { retryable: true }),
      );
    }, timeouts.callMs);
    const onStop = () => request.destroy(signal.reason as Error);
    const options: CheckedRequestOptions = {
      agent,
      method: 'POST',
      path: '/jsonrpc',
      host: target.host,
      port: target.port,
      checkedTarget: target,
      headers: { accept: 'application/json', 'content-type': 'application/json', 'content-length': body.byteLength },
    };
    const request = requestHttps(options);
    signal.addEventListener('abort', onStop, { once: true });
    request.on('error', reject);
    request.on('close', () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onStop);
      reject(Object.assign(new Error('the connection was closed before the answer'), { code: 'ECONNRESET' }));
    });
    request.on('response', (response) => {
      const { statusCode = 0 } = response;
      const type = response.headers['content-type'] ?? '';
      if (statusCode !== 200) {
        request.destroy(
          new BackupError('HOST_ANSWER_INVALID', `${method}: expected HTTP status 200, got ${statusCode}`, {
            retryable: statusCode >= 500,
            facts: { status: statusCode },
          }),
        );
        return;
      }
      if (/xml/i.test(type)) {
        request.destroy(
          new BackupError('HOST_NOT_SUPPORTED', `${method}: the host answers in ${type}: it has no JSON-RPC`),
        );
        return;
      }
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.byteLength;
        chunks.push(chunk);
        if (length > MAX_ANSWER_BYTES) {
          request.destroy(
            new BackupError('HOST_ANSWER_INVALID', `${method}: the answer is over ${MAX_ANSWER_BYTES} bytes`),
          );
        }
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.complete) resolve(Buffer.concat(chunks, length).toString('utf8'));
      });
    });
    request.end(body);
    return promise;
  }

  return {
    transportTo(xapiTarget) {
      const target = parseTarget(xapiTarget);
      const gates = hostGates(target.host, limits);
      async function call(method: string, params: readonly unknown[]): Promise<unknown> {
        const release = await gates.calls.enter({ signal: stop.signal });
        try {
          return await send(target, method, params);
        } finally {
          release();
        }
      }
      return async (method, args) => {
        if (closed) throw new Refusal('SESSION_INVALID', []);
        if (method === EVENT_QUERY) return send(target, method, args);
        const params = method === 'session.login_with_password' ? [args[0], args[1], API_VERSION, originator] : args;
        const answer = call(method, params);
        inFlight.add(answer);
        try {
          return await answer;
        } finally {
          inFlight.delete(answer);
        }
      };
    },
    async settle(ms) {
      const timer = Promise.withResolvers<void>();
      const timeout = setTimeout(timer.resolve, ms);
      await Promise.race([Promise.allSettled(inFlight), timer.promise]);
      clearTimeout(timeout);
    },
    interrupt(reason) {
      stop.abort(reason);
      stop = new AbortController();
    },
    close() {
      closed = true;
      stop.abort(new Refusal('SESSION_INVALID', []));
      agent.destroy();
    },
  };
}

interface CheckedRequestOptions extends RequestOptions {
  readonly checkedTarget?: Target;
}

/** Keeps connections open between calls, and gives out none whose certificate was not checked. */
class CheckedAgent extends Agent {
  readonly #trust: Trust;
  readonly #timeoutMs: number;
  readonly #signal: () => AbortSignal;

  constructor(trust: Trust, timeoutMs: number, signal: () => AbortSignal) {
    super({ keepAlive: true, timeout: 10_000 });
    this.#trust = trust;
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
  }

  override createConnection(
    options: RequestOptions,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    const target = (options as CheckedRequestOptions).checkedTarget;
    if (target === undefined) throw new TypeError('the agent serves our own calls only');
    this.#trust.connect(target, { timeoutMs: this.#timeoutMs, signal: this.#signal() }).then(
      (socket) => callback?.(null, socket),
      (error: Error) => (callback as ((error: Error) => void) | undefined)?.(error),
    );
    return undefined;
  }
}

/** A failure for a transcript: the host's own code and parameters, or what went wrong on the way. */
function describeFailure(error: unknown): unknown {
  if (error instanceof Refusal) return { code: error.code, params: error.params };
  return error instanceof Error ? error.message : String(error);
}
