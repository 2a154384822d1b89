import { X509Certificate } from 'node:crypto';
import { connect as connectTcp, isIP, type OnReadOpts, type Socket } from 'node:net';
import { checkServerIdentity, connect as connectTls, type TLSSocket } from 'node:tls';
import { anySignal, BackupError } from '../core/index.ts';
import { openTunnel } from './proxy-tunnel.ts';

/** By what a host's certificate is believed. With nothing set, the certificate authorities that Node knows decide. */
export interface TlsTrust {
  /** Certificate authorities, as PEM; the host's name or address must stand in its certificate. */
  readonly ca?: string | readonly string[] | undefined;
  /** Exactly these certificates, as PEM, whatever their names and dates: one for each host of the pool. */
  readonly certificate?: string | readonly string[] | undefined;
  /** Certificates with exactly these SHA-256 fingerprints, in hexadecimal, with or without colons. */
  readonly fingerprint256?: string | readonly string[] | undefined;
}

/** Decides over one connection before a byte of ours is on it. */
export interface Trust {
  /** Opens a connection whose peer is believed, or rejects with `HOST_CERTIFICATE_MISMATCH`. */
  connect(
    target: Target,
    options: {
      readonly timeoutMs: number;
      /** Where the bytes of a direct connection go; through a proxy they come as events. */
      readonly onread?: OnReadOpts | undefined;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<Socket>;
}

/**
 * Where an address of the pool is, seen from here: where NAT hides the hosts, or they are reached through a tunnel. Called
 * with each address a connection is to be opened to: of the url, of redirects, of a coordinator that a member names, of NBD.
 * A text is another address with the same port.
 */
export type ResolveAddress = (
  address: string,
  port: number,
) =>
  | string
  | {
      /** A name or address. */
      readonly host: string;
      /** The port there. */
      readonly port: number;
    };

/** Asks for the way to an address; without an answer to ask, it is its own. */
export function wayTo(
  { host, port }: { readonly host: string; readonly port: number },
  resolve: ResolveAddress | undefined,
): { readonly host: string; readonly port: number } {
  const way = resolve?.(host, port) ?? host;
  return typeof way === 'string' ? { host: way, port } : way;
}

export interface Target {
  readonly protocol: 'https:' | 'http:';
  /** A name or address, without brackets. */
  readonly host: string;
  readonly port: number;
}

const list = <T>(value: T | readonly T[] | undefined): readonly T[] =>
  value === undefined ? [] : Array.isArray(value) ? (value as readonly T[]) : [value as T];

/** `AB:CD…`, as Node prints fingerprints. */
function normaliseFingerprint(text: string): string {
  const digits = text.replace(/[:\s]/g, '').toUpperCase();
  if (!/^[0-9A-F]{64}$/.test(digits)) {
    throw new TypeError(`fingerprint256: expected 64 hexadecimal digits, got ${JSON.stringify(text)}`);
  }
  return digits.replace(/..(?!$)/g, '$&:');
}

/** The SHA-256 fingerprint of a PEM certificate, as Node prints it. */
export function fingerprintOf(pem: string): string {
  return new X509Certificate(pem).fingerprint256;
}

/**
 * @throws TypeError for a pin that is none, and where plain HTTP or no check at all was asked for without
 * `insecure: true`.
 */
export function createTrust(
  tls: TlsTrust = {},
  insecure = false,
  { resolve, proxy }: { readonly resolve?: ResolveAddress | undefined; readonly proxy?: URL | undefined } = {},
): Trust {
  const pins = new Set([
    ...list(tls.certificate).map(fingerprintOf),
    ...list(tls.fingerprint256).map(normaliseFingerprint),
  ]);
  const ca = list(tls.ca);

  function check(socket: TLSSocket, target: Target): void {
    if (insecure && pins.size === 0 && ca.length === 0) return;
    const found = socket.getPeerX509Certificate()?.fingerprint256;
    const where = `${target.host}:${target.port}`;
    if (pins.size > 0) {
      if (found !== undefined && pins.has(found)) return;
      const expected = [...pins];
      throw new BackupError(
        'HOST_CERTIFICATE_MISMATCH',
        `${where} shows another certificate: expected SHA-256 ${expected.join(' or ')}, got ${found ?? 'none'}`,
        { facts: { expected, found } },
      );
    }
    if (socket.authorized) return;
    const reason = String(socket.authorizationError);
    throw new BackupError(
      'HOST_CERTIFICATE_MISMATCH',
      `${where} shows a certificate that is not believed (${reason}): SHA-256 ${found ?? 'none'}; pin it, or name its authority`,
      { facts: { expected: ca.length > 0 ? 'the given authority' : 'an authority that Node knows', found, reason } },
    );
  }

  async function open(target: Target, onread: OnReadOpts | undefined, signal: AbortSignal): Promise<Socket> {
    const { host } = target;
    if (target.protocol === 'http:' && !insecure) {
      throw new TypeError(`${host}: plain HTTP shows the password to the network; it needs insecure: true`);
    }
    const way = wayTo(target, resolve);
    const socket = proxy === undefined ? undefined : await openTunnel(proxy, way, signal);
    if (target.protocol === 'http:') return socket ?? connectTcp({ ...way, ...(onread && { onread }) });
    return connectTls({
      ...(socket === undefined ? { ...way, ...(onread && { onread }) } : { socket }),
      // Judged by check() before anything is sent: only so can the error name the fingerprint that was found.
      rejectUnauthorized: false,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(ca.length > 0 ? { ca: [...ca] } : {}),
      // The certificate is for the host's own address, whatever way leads there.
      checkServerIdentity: (_, certificate) => (pins.size > 0 ? undefined : checkServerIdentity(host, certificate)),
    });
  }

  return {
    async connect(target, { timeoutMs, onread, signal: given }) {
      given?.throwIfAborted();
      const where = `${target.host}:${target.port}`;
      const late = new AbortController();
      const timer = setTimeout(() => {
        late.abort(new BackupError('TIMEOUT', `${where}: no connection within ${timeoutMs} ms`, { retryable: true }));
      }, timeoutMs);
      const signal = anySignal(given, late.signal) ?? late.signal;
      let socket: Socket | undefined;
      try {
        socket = await open(target, onread, signal);
        // Without a proxy the socket is on its way; through one a plain one is there.
        if (target.protocol === 'https:' || socket.connecting) await ready(socket, target, signal);
        if (target.protocol === 'https:') check(socket as TLSSocket, target);
        return socket.setNoDelay(true).setKeepAlive(true, 60_000);
      } catch (error) {
        socket?.on('error', () => {}); // the first failure is the one that counts
        socket?.destroy();
        throw error;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

async function ready(socket: Socket, { protocol, host, port }: Target, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => reject(signal.reason);
  const onClose = () =>
    reject(Object.assign(new Error(`${host}:${port} closed the connection`), { code: 'ECONNRESET' }));
  const event = protocol === 'http:' ? 'connect' : 'secureConnect';
  socket.once(event, resolve).once('error', reject).once('close', onClose);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    await promise;
  } finally {
    socket.off(event, resolve).off('error', reject).off('close', onClose);
    signal.removeEventListener('abort', onAbort);
  }
}
