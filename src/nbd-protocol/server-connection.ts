import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { Clock } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { INIT_MAGIC, MAX_OPTION_DATA, OPTION_MAGIC, PSK_CIPHERS, REQUEST_MAGIC } from './constants.ts';
import { violation } from './errors.ts';
import {
  clientFlags,
  decodeRequest,
  greeting,
  joinBytes,
  newstyleFlags,
  optionRequest,
  REQUEST_SIZE,
  type RequestHeader,
} from './messages.ts';
import type {
  NbdConnectionInfo,
  NbdExportResolver,
  NbdServerOptions,
  NbdServerStep,
  NbdServerTlsOptions,
  NbdServerVerdict,
} from './server-options.ts';
import type { Reading, Transport } from './transport.ts';

/** What every part of the server knows of its connection. */
export interface ServerConnection {
  readonly transport: Transport;
  readonly info: NbdConnectionInfo;
  readonly options: NbdServerOptions;
  readonly clock: Clock;
  readonly open: NbdExportResolver;
  /** `undefined` where the exports cannot be listed. */
  readonly list: (() => Iterable<string>) | undefined;
  /** Fires when the server begins to close: from then on all is refused, in words. */
  readonly closing: AbortSignal;
  /** Fires when the server closes its connections. */
  readonly signal: AbortSignal;
  /** The handshake is over: its deadline no longer counts. */
  established(): void;
}

/** The connection is to be closed, without a word; nothing is wrong with the server. */
export class Dropped extends Error {
  override readonly name = 'Dropped';
}

/** Tells the hook where we are. */
export async function step(
  connection: ServerConnection,
  where: NbdServerStep,
): Promise<Exclude<NbdServerVerdict, 'drop'>> {
  const verdict = await connection.options.hooks?.onStep?.(where, connection.info);
  if (verdict === 'drop') throw new Dropped(`by a hook, at ${where.kind}`);
  connection.signal.throwIfAborted();
  return verdict;
}

/** Sends the newstyle greeting and returns the client's flags. */
export async function greet({ transport }: ServerConnection, flags: number): Promise<number> {
  const hello = greeting.encode({ initMagic: INIT_MAGIC, styleMagic: OPTION_MAGIC });
  transport.write(joinBytes(hello, newstyleFlags.encode({ flags })));
  return transport.read(readClientFlags());
}

function* readClientFlags(): Reading<number> {
  const bytes = new Uint8Array(clientFlags.size);
  yield bytes;
  return clientFlags.decode(bytes).flags;
}

/** One option with its data. Data beyond our limit ends the connection: it is no client's. */
export function* readOption(): Reading<{ option: number; data: Uint8Array }> {
  const bytes = new Uint8Array(optionRequest.size);
  yield bytes;
  const { magic, option, length } = optionRequest.decode(bytes);
  if (magic !== OPTION_MAGIC) throw violation('magic of an option', OPTION_MAGIC.toString(16), magic.toString(16));
  if (length > MAX_OPTION_DATA) throw violation('length of an option', `at most ${MAX_OPTION_DATA}`, length);
  const data = new Uint8Array(length);
  yield data;
  return { option, data };
}

/** A request without its data. */
export function* readRequest(): Reading<RequestHeader> {
  const bytes = new Uint8Array(REQUEST_SIZE);
  yield bytes;
  const request = decodeRequest(bytes);
  if (request.magic !== REQUEST_MAGIC) {
    throw violation('magic of a request', REQUEST_MAGIC.toString(16), request.magic.toString(16));
  }
  return request;
}

/** Puts TLS around the connection, after the ACK was sent. */
export async function secureServer({ transport }: ServerConnection, tls: NbdServerTlsOptions): Promise<void> {
  await transport.upgrade((socket) => {
    // A server that never listens: it checks clients' certificates, which a bare TLSSocket does not.
    const server = createServer(tlsOptions(tls));
    const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
    server.once('secureConnection', resolve).once('tlsClientError', reject);
    void transport.closed.then(() => reject(new Dropped('within TLS')));
    server.emit('connection', socket);
    return promise;
  });
}

/** @throws TypeError where neither a certificate with its key nor pre-shared keys are given, or both. */
export function assertTlsOptions({ key, cert, psk, clientCa }: NbdServerTlsOptions): void {
  const certified = key !== undefined && cert !== undefined;
  if (certified === (psk !== undefined)) throw new TypeError('tls: expected either key and cert, or psk');
  if (psk !== undefined && clientCa !== undefined) throw new TypeError('tls: with psk clients show no certificate');
}

function tlsOptions(tls: NbdServerTlsOptions): TlsOptions {
  const { key, cert, psk, minVersion, maxVersion, ecdhCurve, ciphers, clientCa } = tls;
  return {
    ...(psk === undefined ? { key, cert } : pskOptions(psk)),
    minVersion: minVersion ?? 'TLSv1.2',
    ...(maxVersion === undefined ? {} : { maxVersion }),
    ...(ecdhCurve === undefined ? {} : { ecdhCurve }),
    ...(ciphers === undefined ? {} : { ciphers }),
    ...(clientCa === undefined ? {} : { ca: typeof clientCa === 'string' ? clientCa : [...clientCa] }),
    requestCert: clientCa !== undefined,
    rejectUnauthorized: clientCa !== undefined,
  };
}

/** Without a certificate there is no way in but by a key. */
function pskOptions(keys: Readonly<Record<string, Uint8Array>>): TlsOptions {
  return {
    ciphers: PSK_CIPHERS,
    pskCallback: (_socket, identity) => (Object.hasOwn(keys, identity) ? keys[identity]! : null),
  };
}

/** Runs `work` with an export, and gives the export back afterwards, whatever happens. */
export async function withExport(
  connection: ServerConnection,
  name: string,
  work: (disk: Disk | undefined) => Promise<void>,
): Promise<void> {
  const disk = await connection.open(name, connection.info);
  try {
    await work(disk);
  } finally {
    if (disk !== undefined) await connection.options.release?.(disk, connection.info);
  }
}
