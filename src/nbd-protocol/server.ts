import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { BackupError, type Clock, createLog, FormatError, systemClock } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { ConnectionEnded } from './errors.ts';
import { assertTlsOptions, Dropped, type ServerConnection, step } from './server-connection.ts';
import { serveStandard } from './server-handshake.ts';
import type { NbdConnectionInfo, NbdExports, NbdServerOptions } from './server-options.ts';
import { serveAsXenServer } from './server-xenserver.ts';
import { Transport } from './transport.ts';
import { formatNbdUri } from './uri.ts';

const log = createLog('nbd-server');

/** A client that does not close after its goodbye is closed after this, in milliseconds. */
const LINGER_MS = 5000;
const HANDSHAKE_MS = 120_000;
const SHUTDOWN_MS = 500;

/** A running NBD server. */
export interface NbdServer extends AsyncDisposable {
  /** For the export with the empty name, or the only one there is. */
  readonly uri: string;
  /** For one export, by its name. */
  uriOf(exportName: string): string;
  /** 0 for a Unix socket. */
  readonly port: number;
  /** The address it listens on; the path of a Unix socket. */
  readonly address: string;
  /** Connections that count against the limit, those that have just ended included. */
  readonly connectionCount: number;
  /**
   * Stops listening, refuses what is asked and what is under way with ESHUTDOWN for `shutdownMs`, and then ends the
   * connections that are left. Resolves when every export was released.
   */
  close(): Promise<void>;
}

/**
 * Serves disks over NBD. The disks stay the caller's: closing the server does not close them. A resolver opens an
 * export for each connection; `release` gets it back.
 */
export async function serveNbd(exports: NbdExports, options: NbdServerOptions = {}): Promise<NbdServer> {
  if (options.tls !== undefined) assertTlsOptions(options.tls);
  const { host = '127.0.0.1', port = 0, socketPath, personality = 'standard', clock = systemClock } = options;
  const { maxConnections = personality === 'xenserver' ? 16 : 128, slotReleaseDelayMs = 0 } = options;
  const serve = personality === 'xenserver' ? serveAsXenServer : serveStandard;
  const closing = new AbortController();
  const stop = new AbortController();
  const { open, list } = catalogue(exports);
  const running = new Set<Promise<void>>();
  const transports = new Set<Transport>();
  const shutdownMs = personality === 'xenserver' ? 0 : (options.shutdownMs ?? SHUTDOWN_MS);
  let slots = 0;
  let connectionId = 0;

  const accept = (socket: Socket) => {
    if (slots >= maxConnections) {
      socket.on('error', () => {}); // it was turned away: how it takes that is no concern of ours
      socket.destroy();
      return;
    }
    slots++;
    const transport = new Transport(socket, clock);
    transports.add(transport);
    const info: NbdConnectionInfo = { connectionId: ++connectionId, peer: peerOf(socket) };
    const handshake = new AbortController();
    const established = () => handshake.abort();
    const signals = { closing: closing.signal, signal: stop.signal };
    const connection = { transport, info, options, clock, open, list, ...signals, established };
    dropLate(connection, options.handshakeMs ?? HANDSHAKE_MS, handshake.signal);
    const run = runConnection(connection, serve)
      .then(async () => {
        transports.delete(transport);
        if (slotReleaseDelayMs > 0) await clock.sleep(slotReleaseDelayMs, { signal: stop.signal });
      })
      .catch((error: unknown) => {
        if (!stop.signal.aborted)
          log.debug('a connection failed', { connection: info.connectionId, why: String(error) });
      })
      .finally(() => {
        slots--;
        running.delete(run);
      });
    running.add(run);
  };

  const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 10_000 }, accept);
  server.listen(socketPath === undefined ? { host, port } : { path: socketPath });
  await once(server, 'listening');
  const bound = socketPath === undefined ? (server.address() as AddressInfo) : undefined;
  const target = bound === undefined ? { socketPath: socketPath! } : { host: bound.address, port: bound.port };
  const uriOf = (name: string) => formatNbdUri(target, name, options.tls !== undefined);
  const names = list === undefined ? [] : [...list()];
  let end: Promise<void> | undefined;
  const close = () => {
    end ??= (async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      closing.abort(new Dropped('the server is going down'));
      if (shutdownMs > 0) await allClosed(transports, clock, shutdownMs);
      stop.abort(new Dropped('the server is closed'));
      for (const transport of transports) transport.destroy();
      await Promise.all(running);
      await closed;
    })();
    return end;
  };
  return {
    uri: uriOf(names.length === 1 ? names[0]! : ''),
    uriOf,
    port: bound?.port ?? 0,
    address: bound?.address ?? socketPath!,
    get connectionCount() {
      return slots;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Waits until the clients have gone by themselves, at most `ms`. */
async function allClosed(transports: Iterable<Transport>, clock: Clock, ms: number): Promise<void> {
  const stop = new AbortController();
  const late = clock.sleep(ms, { signal: stop.signal }).catch(() => {}); // they were in time
  await Promise.race([Promise.all(Array.from(transports, ({ closed }) => closed)), late]);
  stop.abort();
}

/** Serves one connection to its end; whatever ended it, the socket is closed afterwards. */
async function runConnection(
  connection: ServerConnection,
  serve: (connection: ServerConnection) => Promise<void>,
): Promise<void> {
  const { transport, info, options } = connection;
  try {
    try {
      await step(connection, { kind: 'accepted' });
      await serve(connection);
    } finally {
      connection.established();
      await options.hooks?.onStep?.({ kind: 'ended' }, info);
    }
    transport.end();
    await transport.awaitClose(LINGER_MS);
  } catch (error) {
    transport.destroy();
    if (!isExpected(error)) throw error;
    log.debug('connection dropped', { connection: info.connectionId, why: String(error) });
  }
  await transport.closed;
}

/** Ends a connection whose handshake takes too long; `done` fires when it is over. */
function dropLate({ clock, transport }: ServerConnection, ms: number, done: AbortSignal): void {
  clock.sleep(ms, { signal: done }).then(
    () => transport.destroy(),
    () => {}, // in time
  );
}

/** Clients go, break the protocol, or are dropped: none of it is the server's failure. */
function isExpected(error: unknown): boolean {
  return (
    error instanceof Dropped ||
    error instanceof ConnectionEnded ||
    error instanceof FormatError ||
    error instanceof BackupError
  );
}

function catalogue(exports: NbdExports): Pick<ServerConnection, 'open' | 'list'> {
  if (typeof exports === 'function') return { open: exports, list: undefined };
  const disks: ReadonlyMap<string, Disk> = isMap(exports) ? exports : new Map(Object.entries(exports));
  return { open: async (name) => disks.get(name), list: () => disks.keys() };
}

function isMap(exports: Exclude<NbdExports, (...args: never) => unknown>): exports is ReadonlyMap<string, Disk> {
  return exports instanceof Map;
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`;
}
