import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { type HandshakeCall, listExports, openExport, type Session } from './client-handshake.ts';
import type { NbdOptions } from './client-options.ts';
import { type Settings, settingsOf } from './settings.ts';
import { DirectReceiver, Transport, within } from './transport.ts';

/** One export of a server. */
export interface NbdExportInfo {
  /** By which it is opened; may be empty. */
  readonly name: string;
  /** For people; often empty. */
  readonly description: string;
}

/** An open connection after its handshake. */
export interface Opened {
  readonly transport: Transport;
  readonly session: Session;
}

/** Opens one connection to the export. */
export async function openConnection(settings: Settings, signal: AbortSignal | undefined): Promise<Opened> {
  return withTransport(settings, signal, async (transport, call) => ({
    transport,
    session: await openExport(transport, call),
  }));
}

/**
 * The exports a server lists; XenServer's refuses to.
 *
 * @throws NbdError
 */
export async function listNbdExports(
  target: string | NbdOptions,
  options: NbdOptions & {
    /** @defaultValue 10 000 */
    readonly maxExports?: number | undefined;
  } = {},
): Promise<NbdExportInfo[]> {
  const { maxExports = 10_000, ...more } = options;
  const settings = settingsOf(target, more);
  const signal = typeof target === 'string' ? options.signal : (target.signal ?? options.signal);
  return withTransport(settings, signal, async (transport, call) => {
    const exports = await listExports(transport, call, maxExports);
    await transport.closed;
    return exports;
  });
}

/** Connects within the budget, and leaves neither socket nor slot behind if `work` fails. */
async function withTransport<T>(
  settings: Settings,
  signal: AbortSignal | undefined,
  work: (transport: Transport, call: HandshakeCall) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const release = await settings.acquireSlot(signal);
  let endTurn: (() => void) | undefined;
  let transport: Transport | undefined;
  try {
    endTurn = await settings.awaitTurn(signal);
    transport = await connectTransport(settings, signal);
    const result = await work(transport, { settings, signal });
    void transport.closed.then(release);
    return result;
  } catch (error) {
    transport?.destroy();
    await transport?.closed;
    release();
    throw error;
  } finally {
    endTurn?.();
  }
}

async function connectTransport(settings: Settings, signal: AbortSignal | undefined): Promise<Transport> {
  const { address, clock, timeouts, fail, tls } = settings;
  const receiver = tls === undefined ? new DirectReceiver() : undefined;
  const direct = receiver === undefined ? {} : { onread: receiver.onread };
  const socket =
    'host' in address
      ? connectSocket({ ...address, noDelay: true, keepAlive: true, keepAliveInitialDelay: 10_000, ...direct })
      : connectSocket({ path: address.socketPath, ...direct });
  const transport = new Transport(socket, clock, receiver);
  const ms = timeouts.connectMs;
  const late = () => fail('NBD_TIMEOUT', 'connect', `no connection within ${ms} ms`, { retryable: true });
  await within(transport, { clock, ms, signal, late }, () => connected(socket, settings));
  return transport;
}

async function connected(socket: Socket, { fail }: Settings): Promise<void> {
  try {
    await once(socket, 'connect');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw fail('NBD_CONNECT_FAILED', 'connect', code ?? message, { cause, retryable: isPassing(code) });
  }
}

/** A name that does not exist, or a socket we may not open, will not be better on the next try. */
function isPassing(code: string | undefined): boolean {
  return !['ENOTFOUND', 'EACCES', 'EPERM', 'EINVAL', 'ENOTSOCK', 'EAFNOSUPPORT'].includes(code ?? '');
}
