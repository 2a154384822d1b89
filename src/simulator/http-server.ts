import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { errorAnswer, headLength } from './http-answers.ts';
import type { SelfSigned } from './self-signed.ts';

/** The longest body of a call, in bytes. */
const MAX_CALL_SIZE = 300 * 1024;

/** What the server hands requests to. */
export interface HttpServices {
  /** Answers the body of a `POST /jsonrpc`; rejects for what is no call. */
  call(body: string, signal: AbortSignal, dropBefore: () => void): Promise<string>;
  /** Serves any other request on its raw connection. */
  transfer(request: IncomingMessage, socket: Socket): Promise<void>;
  /** Called with what a transfer rejected with: a fault of the simulator itself. */
  report(error: unknown): void;
}

/** A listening HTTPS server. */
export interface HttpServer {
  readonly port: number;
  /** Ends every open connection. */
  dropConnections(): void;
  close(): Promise<void>;
}

/** Listens on a free port of `address`. TLS 1.2 only, heads of at most `headLimit` bytes, as hosts do. */
export async function listen(
  address: string,
  { certificate, key }: SelfSigned,
  headLimit: number | undefined,
  services: HttpServices,
): Promise<HttpServer> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({
    cert: certificate,
    key,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    ciphers: 'ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256',
    maxHeaderSize: headLimit ?? 64 * 1024,
    headersTimeout: 60_000,
    requestTimeout: 0, // uploads take as long as they take
    keepAliveTimeout: 60_000,
  });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    request.on('error', () => {}); // the client has gone: whoever reads the body sees its end
    handle(request, response).catch((error: unknown) => {
      services.report(error);
      request.socket.destroy();
    });
  };
  server.on('request', serve);
  server.on('checkContinue', serve); // hosts do not know `Expect: 100-continue`
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable) return;
    socket.end(errorAnswer(error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 500));
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split('?', 1)[0];
    if (headLimit !== undefined && headLength(request) > headLimit) {
      request.socket.end(errorAnswer(431));
    } else if (request.method === 'POST' && path === '/jsonrpc') {
      await answerCall(request, response);
    } else {
      await services.transfer(request, request.socket);
    }
  }

  async function answerCall(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.on('close', () => gone.abort(new Error('the client has gone')));
    let answer: string;
    try {
      answer = await services.call(await readCall(request), gone.signal, () => request.socket.destroy());
    } catch (error) {
      if (!gone.signal.aborted) request.socket.end(errorAnswer(500));
      if (!(error instanceof Error)) throw error;
      return;
    }
    if (gone.signal.aborted) return;
    response.writeHead(200, 'OK', {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(answer),
      'cache-control': 'no-cache, no-store',
      'access-control-allow-origin': '*',
      'access-control-allow-headers': 'X-Requested-With',
    });
    response.end(answer);
  }

  server.listen(0, address);
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    dropConnections() {
      for (const socket of sockets) socket.destroy();
    },
    async close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

/** A body with a `Content-Length` of at most 300 KiB; anything else is refused, as on the host. */
async function readCall(request: IncomingMessage): Promise<string> {
  const length = Number(request.headers['content-length'] ?? Number.NaN);
  if (!Number.isSafeInteger(length)) throw new Error('We require a content-length: HTTP header');
  if (length > MAX_CALL_SIZE) throw new Error(`the body of a call has ${length} bytes, more than ${MAX_CALL_SIZE}`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks).toString('utf8');
}
