import type { Socket } from 'node:net';
import { BackupError } from '../core/index.ts';
import type { Receiver } from './receiver.ts';

/**
 * The longest request head that a host takes, in bytes: 1024 less what its reader keeps for itself.
 * Source: xapi-project/xen-api `ocaml/xapi/xapi_globs.ml`, `max_header_length_tcp`.
 */
export const MAX_REQUEST_HEAD_BYTES = 1006;

/** The longest answer head that we take, in bytes. */
const MAX_RESPONSE_HEAD_BYTES = 64 * 1024;

export interface RequestHead {
  readonly method: 'GET' | 'PUT';
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Name or address, for the `Host` header. */
  readonly host: string;
  /** With PUT, in bytes: a host refuses chunked bodies. */
  readonly contentLength?: number | undefined;
}

export interface ResponseHead {
  readonly status: number;
  /** By name in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** @throws BackupError `HOST_NOT_SUPPORTED` where the head is longer than a host takes */
export function formatRequestHead({ method, path, query, host, contentLength }: RequestHead): Uint8Array {
  const search = Object.entries(query).map(
    ([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`,
  );
  const lines = [
    `${method} ${path}?${search.join('&')} HTTP/1.1`,
    `Host: ${host.includes(':') ? `[${host}]` : host}`,
    'User-Agent: xen-backup-sdk',
    'Connection: close',
    ...(contentLength === undefined ? [] : [`Content-Length: ${contentLength}`]),
  ];
  const head = new TextEncoder().encode(`${lines.join('\r\n')}\r\n\r\n`);
  if (head.byteLength > MAX_REQUEST_HEAD_BYTES) {
    throw new BackupError(
      'HOST_NOT_SUPPORTED',
      `${method} ${path}: the request's head has ${head.byteLength} bytes, a host takes ${MAX_REQUEST_HEAD_BYTES}`,
    );
  }
  return head;
}

/** @throws BackupError `HOST_ANSWER_INVALID` */
export function parseResponseHead(text: string): ResponseHead {
  const [first = '', ...lines] = text.split(/\r?\n/);
  const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first)?.[1];
  if (status === undefined) {
    throw new BackupError(
      'HOST_ANSWER_INVALID',
      `expected an HTTP answer, got ${first.length} characters of another kind`,
    );
  }
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    if (colon > 0) headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  if (headers.has('transfer-encoding')) {
    throw new BackupError('HOST_ANSWER_INVALID', 'expected a plain body, got a chunked one: is there a proxy between?');
  }
  return { status: Number(status), headers };
}

/**
 * One request and its answer on a connection of its own. Written here because hosts answer before they have read what
 * they are sent, and may append a second answer to the first one's body: an HTTP client hides both.
 */
export interface Exchange {
  /** Reads the head of the answer. */
  response(timeoutMs: number): Promise<ResponseHead>;
  /**
   * The next bytes of the body, `undefined` at its end. The wait is bounded, where a bound is given; the time between
   * two calls is not.
   */
  read(timeoutMs?: number): Promise<Uint8Array | undefined>;
  /** Resolves when there is room for more; rejects when the connection is gone, or no byte went out in time. */
  write(chunk: Uint8Array, timeoutMs: number): Promise<void>;
  destroy(): void;
}

export function createExchange(socket: Socket, receiver: Receiver, where: string): Exchange {
  receiver.attach(socket);
  let rest: Uint8Array | undefined;

  async function within<T>(timeoutMs: number | undefined, what: string, work: Promise<T>): Promise<T> {
    if (timeoutMs === undefined) return work;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(new BackupError('TIMEOUT', `${where}: no ${what} for ${timeoutMs} ms`, { retryable: true }));
      socket.destroy();
    }, timeoutMs);
    try {
      return await Promise.race([work, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  async function read(timeoutMs?: number): Promise<Uint8Array | undefined> {
    if (rest !== undefined && rest.byteLength > 0) {
      const piece = rest;
      rest = undefined;
      return piece;
    }
    return within(timeoutMs, 'byte', receiver.next());
  }

  async function response(timeoutMs: number): Promise<ResponseHead> {
    const parts: Uint8Array[] = [];
    for (let length = 0; length <= MAX_RESPONSE_HEAD_BYTES; ) {
      const chunk = await read(timeoutMs);
      if (chunk === undefined) throw Object.assign(new Error('closed before the answer'), { code: 'ECONNRESET' });
      parts.push(chunk);
      length += chunk.byteLength;
      const bytes = Buffer.concat(parts, length); // a head comes in one piece or two
      const end = bytes.indexOf('\r\n\r\n');
      if (end === -1) continue;
      rest = bytes.subarray(end + 4);
      return parseResponseHead(bytes.toString('latin1', 0, end));
    }
    throw new BackupError(
      'HOST_ANSWER_INVALID',
      `${where}: the answer's head is over ${MAX_RESPONSE_HEAD_BYTES} bytes`,
    );
  }

  async function write(chunk: Uint8Array, timeoutMs: number): Promise<void> {
    if (socket.destroyed || !socket.writable) throw gone();
    if (socket.write(chunk)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onClose = () => reject(gone());
    socket.once('drain', resolve).once('error', reject).once('close', onClose);
    try {
      await within(timeoutMs, 'byte taken', promise);
    } finally {
      socket.off('drain', resolve).off('error', reject).off('close', onClose);
    }
  }

  function gone(): Error {
    return Object.assign(new Error('the connection is closed'), { code: 'EPIPE' });
  }

  return { response, read, write, destroy: () => socket.destroy() };
}
