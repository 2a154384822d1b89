import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { createHandlerContext, type Exchange } from './handler-context.ts';
import { errorAnswer } from './http-answers.ts';
import type { LogWriter } from './request-log.ts';
import type { Simulation } from './simulation.ts';
import { hostFor } from './storage-host.ts';
import { failureOf } from './tasks.ts';
import { type HandlerTable, HttpRefusal, XapiFailure } from './world.ts';

/** How long an answered connection may linger with unread data before it is reset. */
const LINGER_MS = 1000;

/** Serves the requests that are no calls, each on its own connection. */
export function createTransfers(simulation: Simulation, handlers: HandlerTable, log: LogWriter) {
  const { world, sessions, closing } = simulation;

  /** Cookie first, then query, then Basic: a session for this request only. Throws a refusal with 401. */
  function authenticate(request: IncomingMessage, query: ReadonlyMap<string, string>): { ref: string; own: boolean } {
    const unauthorised = () => new HttpRefusal(401, undefined, { 'WWW-Authenticate': 'Basic realm="XenServer"' });
    const given = cookiesOf(request).get('session_id') ?? query.get('session_id');
    if (given !== undefined) {
      try {
        sessions.check(given);
      } catch (error) {
        if (error instanceof XapiFailure) throw unauthorised();
        throw error;
      }
      return { ref: given, own: false };
    }
    const { authorization } = request.headers;
    if (authorization === undefined) throw unauthorised();
    const [, encoded] = /^basic\s+(\S+)$/i.exec(authorization) ?? [];
    if (encoded === undefined) throw new HttpRefusal(500);
    const [, user = '', password = ''] = /^([^:]*):(.*)$/s.exec(Buffer.from(encoded, 'base64').toString()) ?? [];
    try {
      return { ref: sessions.logIn(user, password, 'Basic auth'), own: true };
    } catch (error) {
      if (error instanceof XapiFailure) throw unauthorised();
      throw error;
    }
  }

  /** Ends the exchange: the task first, then the connection. */
  function fail(exchange: Exchange, socket: Socket, error: unknown): void {
    const refusal = error instanceof HttpRefusal ? error : undefined;
    if (refusal === undefined || refusal.failure !== undefined) exchange.task?.fail(refusal?.failure ?? error);
    if (!socket.writable) return;
    // After the head this is a second complete answer inside the body of the first.
    socket.write(errorAnswer(exchange.headSent ? 500 : (refusal?.status ?? 500), refusal?.headers));
  }

  return async (request: IncomingMessage, socket: Socket): Promise<void> => {
    const { path, query } = parseTarget(request);
    const method = request.method ?? '';
    log.add({ kind: 'http', method, path, query: Object.fromEntries(query) });
    const drop = world.faults.take('drop-connection', (fault) => fault.path === path);
    if (drop !== undefined && drop.when !== 'after') {
      socket.destroy();
      return;
    }
    const handler = handlers.get(`${method} ${path}`);
    const redirect = world.faults.take('redirect', (fault) => fault.path === path);
    if (handler === undefined) return endWith(socket, request, errorAnswer(403));
    if (redirect !== undefined) {
      return endWith(socket, request, sentTo(redirect.address, request));
    }
    let session: { ref: string; own: boolean };
    try {
      session = authenticate(request, query);
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      return endWith(socket, request, errorAnswer(error.status, error.headers));
    }
    const elsewhere = hostFor(simulation, path, query);
    if (elsewhere !== undefined) {
      if (session.own) sessions.logOut(session.ref);
      return endWith(socket, request, sentTo(elsewhere.identity.address, request));
    }
    const exchange = createHandlerContext(simulation, { request, socket, path, query, session: session.ref });
    try {
      await handler(exchange.context);
      exchange.task?.succeed();
    } catch (error) {
      fail(exchange, socket, exchange.clientGone() ? clientError(error) : error);
    } finally {
      exchange.close();
      if (session.own) sessions.logOut(session.ref);
    }
    if (drop !== undefined) socket.destroy();
    else endWith(socket, request, '');
  };

  /** Ends our side; reads away what the client still sends, and resets the connection if that takes long. */
  function endWith(socket: Socket, request: IncomingMessage, last: string): void {
    socket.end(last);
    request.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
    if (closing.aborted) socket.destroy();
  }
}

function sentTo(address: string, { url }: IncomingMessage): string {
  return `HTTP/1.1 302 Found\r\nlocation: https://${address}${url}\r\ncontent-length: 0\r\n\r\n`;
}

/** What the host makes of an error that only says that the client is gone. */
function clientError(error: unknown): XapiFailure {
  const { code, params } = failureOf(error);
  return code === 'INTERNAL_ERROR'
    ? new XapiFailure('CLIENT_ERROR', ['The client closed the connection'])
    : new XapiFailure(code, params);
}

function parseTarget(request: IncomingMessage): { path: string; query: ReadonlyMap<string, string> } {
  const url = request.url ?? '/';
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const query = new Map(cookiesOf(request));
  for (const [name, value] of new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1))) query.set(name, value);
  return { path, query };
}

/** Cookies, split as the host splits them: on `;` and on `&`. */
function cookiesOf({ headers }: IncomingMessage): ReadonlyMap<string, string> {
  const pairs = (headers.cookie ?? '').split(/[;&]/).map((pair) => pair.trim().split('=', 2));
  return new Map(pairs.flatMap(([name, value]) => (name !== '' && value !== undefined ? [[name!, value]] : [])));
}
