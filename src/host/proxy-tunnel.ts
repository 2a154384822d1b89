import { once } from 'node:events';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { BackupError } from '../core/index.ts';

/** No answer to a CONNECT is longer, in bytes. */
const MAX_HEAD = 16 * 1024;

/**
 * Opens a way through an HTTP proxy: what comes out goes to the target, and nothing of it is the proxy's to read where TLS
 * is spoken through it. Source: RFC 9110, 9.3.6.
 *
 * @param proxy `http://[user:password@]proxy.example.org:3128`, or `https:` for TLS to the proxy itself, which is checked
 * against the authorities that Node knows.
 * @throws BackupError `HOST_UNREACHABLE` where the proxy does not connect, `HOST_CERTIFICATE_MISMATCH` for its own
 * certificate, `HOST_ANSWER_INVALID` for what is no proxy.
 */
export async function openTunnel(
  proxy: URL,
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<Socket> {
  const socket = connectProxy(proxy);
  const onAbort = () => socket.destroy(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    if (socket instanceof TLSSocket) await once(socket, 'secureConnect'); // before it is shown credentials
    const target = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${authorization(proxy)}\r\n`);
    const status = await readStatus(socket);
    if (status >= 200 && status < 300) return socket;
    const message = `the proxy ${proxy.host} does not connect to ${target}: status ${status}`;
    throw new BackupError('HOST_UNREACHABLE', message, { retryable: status >= 500, facts: { status } });
  } catch (error) {
    socket.on('error', () => {}); // the first failure is the one that counts
    socket.destroy();
    signal.throwIfAborted();
    throw untrusted(proxy, socket) ?? error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** @throws TypeError for what is no address of an HTTP proxy. */
export function parseProxy(text: string): URL {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new TypeError('proxy: expected http://<host>:<port>');
  }
  try {
    authorization(url);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw new TypeError('proxy: expected user and password percent-encoded'); // neither of them in it
  }
  return url;
}

function untrusted({ host }: URL, socket: Socket): BackupError | undefined {
  // Node types it as an Error, and sets its code; null where all is well.
  const reason: unknown = socket instanceof TLSSocket ? socket.authorizationError : undefined;
  if (reason === undefined || reason === null) return undefined;
  const message = `the proxy ${host} shows a certificate that is not believed (${String(reason)})`;
  return new BackupError('HOST_CERTIFICATE_MISMATCH', message, { facts: { reason: String(reason) } });
}

function connectProxy({ protocol, hostname, port }: URL): Socket {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol === 'https:') {
    return connectTls({ host, port: Number(port || 443), ...(isIP(host) === 0 ? { servername: host } : {}) });
  }
  return connectTcp({ host, port: Number(port || 80) });
}

function authorization({ username, password }: URL): string {
  if (username === '') return '';
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return `Proxy-Authorization: Basic ${Buffer.from(credentials).toString('base64')}\r\n`;
}

/** The status of the answer, whose head is taken from the socket byte by byte: what follows it is the target's. */
async function readStatus(socket: Socket): Promise<number> {
  const head = await new Promise<string>((resolve, reject) => {
    let text = '';
    const onReadable = () => {
      for (let byte = socket.read(1) as Buffer | null; byte !== null; byte = socket.read(1) as Buffer | null) {
        text += byte.toString('latin1');
        if (text.endsWith('\r\n\r\n')) return done(() => resolve(text));
        if (text.length > MAX_HEAD) return done(() => reject(invalid('an endless answer')));
      }
    };
    const onEnd = () => done(() => reject(invalid('the end of the connection')));
    const onError = (error: Error) => done(() => reject(error));
    const done = (settle: () => void) => {
      socket.off('readable', onReadable).off('end', onEnd).off('error', onError);
      settle();
    };
    socket.on('readable', onReadable).on('end', onEnd).on('error', onError);
  });
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1]);
  if (Number.isNaN(status)) throw invalid(JSON.stringify(head.slice(0, 40)));
  return status;
}

function invalid(actual: string): BackupError {
  return new BackupError('HOST_ANSWER_INVALID', `expected the answer of an HTTP proxy, got ${actual}`);
}
