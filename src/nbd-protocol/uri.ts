import { NBD_PORT } from './constants.ts';
import { NbdError } from './errors.ts';

/** What an NBD URI says. */
export interface NbdUri {
  /** `nbds` and `nbds+unix`: TLS, or nothing. */
  readonly tls: boolean;
  /** For TCP, as written; an IPv6 address without its brackets. */
  readonly host?: string | undefined;
  /** For TCP. */
  readonly port?: number | undefined;
  /** For Unix sockets; a leading NUL names an abstract socket. */
  readonly socketPath?: string | undefined;
  /** Possibly empty: the server's default export. */
  readonly exportName: string;
  /** The identity for TLS with a pre-shared key. */
  readonly username?: string | undefined;
  /** `tls-hostname`: the name to expect in the server's certificate. */
  readonly tlsHostname?: string | undefined;
  /** `tls-verify-peer=0` turns verification off. */
  readonly tlsVerifyPeer?: boolean | undefined;
  /** Parameters that mean nothing to us. */
  readonly unknownParameters: readonly string[];
}

const SCHEMES: ReadonlyMap<string, { tls: boolean; unix: boolean }> = new Map([
  ['nbd', { tls: false, unix: false }],
  ['nbds', { tls: true, unix: false }],
  ['nbd+unix', { tls: false, unix: true }],
  ['nbds+unix', { tls: true, unix: true }],
]);

/**
 * Splits an NBD URI (NetworkBlockDevice/nbd, `doc/uri.md`) by the rules of RFC 3986. The export name is the path
 * without its first slash, kept to the byte: `URL` would fold `..` away.
 *
 * @throws NbdError `NBD_URI_INVALID`, with no part of the URI in its message: the export name may be a secret.
 */
export function parseNbdUri(uri: string): NbdUri {
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/i.exec(uri);
  if (parts === null) throw invalid('it is not of the form scheme://authority/path?query');
  const [, schemeText = '', authority = '', path = '', query = ''] = parts;
  const scheme = SCHEMES.get(schemeText.toLowerCase());
  if (scheme === undefined) throw invalid(`the scheme ${schemeText} is none of ${[...SCHEMES.keys()].join(', ')}`);
  const parameters = parseQuery(query);
  const { username, host, port } = parseAuthority(authority);
  const socketPath = parameters.get('socket');
  const type = parameters.get('tls-type');
  if (type !== undefined && !['x509', 'psk'].includes(type)) throw invalid('tls-type is neither x509 nor psk');
  const verify = parameters.get('tls-verify-peer');
  if (verify !== undefined && verify !== '0' && verify !== '1') throw invalid('tls-verify-peer is neither 0 nor 1');
  if (scheme.unix && (socketPath === undefined || socketPath === '')) throw invalid('the parameter socket is missing');
  if (scheme.unix && (host !== '' || port !== undefined)) throw invalid('a Unix socket has no host and no port');
  if (!scheme.unix && socketPath !== undefined)
    throw invalid('the parameter socket needs the scheme nbd+unix or nbds+unix');
  const known = new Set(['socket', 'tls-type', 'tls-hostname', 'tls-verify-peer']);
  return {
    tls: scheme.tls,
    ...(scheme.unix ? { socketPath } : { host: host === '' ? 'localhost' : host, port: port ?? NBD_PORT }),
    exportName: decode(path.replace(/^\//, '')),
    username,
    tlsHostname: parameters.get('tls-hostname'),
    tlsVerifyPeer: verify === undefined ? undefined : verify === '1',
    unknownParameters: [...parameters.keys()].filter((name) => !known.has(name)),
  };
}

/** Writes an NBD URI; the inverse of {@link parseNbdUri}. */
export function formatNbdUri(
  target: { host: string; port: number } | { socketPath: string },
  exportName: string,
  tls: boolean,
): string {
  const scheme = tls ? 'nbds' : 'nbd';
  const path = exportName === '' ? '' : encodeURIComponent(exportName).replaceAll('%2F', '/').replaceAll('%3D', '=');
  if ('socketPath' in target) return `${scheme}+unix:///${path}?socket=${encodeURIComponent(target.socketPath)}`;
  const host = target.host.includes(':') ? `[${target.host.replace('%', '%25')}]` : target.host;
  return `${scheme}://${host}:${target.port}/${path}`;
}

function parseAuthority(authority: string): { username?: string; host: string; port?: number } {
  const at = authority.lastIndexOf('@');
  const parts = /^(\[[0-9a-f:.]+(?:%25[\w.-]+)?\]|[^:[\]]*)(?::(\d*))?$/i.exec(authority.slice(at + 1));
  if (parts === null) throw invalid('its host or port is malformed');
  const [, hostText = '', portText = ''] = parts;
  const host = decode(hostText.startsWith('[') ? hostText.slice(1, -1) : hostText);
  const port = portText === '' ? undefined : Number(portText);
  if (port !== undefined && (port < 1 || port > 65535)) throw invalid(`its port ${port} is not within 1 and 65535`);
  return {
    ...(at < 0 ? {} : { username: decode(authority.slice(0, at)) }),
    host,
    ...(port === undefined ? {} : { port }),
  };
}

function parseQuery(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of query.split(/[&;]/)) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decode(equals < 0 ? pair : pair.slice(0, equals));
    if (parameters.has(name)) throw invalid(`the parameter ${name} is given twice`);
    parameters.set(name, equals < 0 ? '' : decode(pair.slice(equals + 1)));
  }
  return parameters;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw invalid('a percent escape in it is malformed', cause);
  }
}

function invalid(message: string, cause?: unknown): NbdError {
  const peer = { server: '(from a URI)', exportName: '' };
  return new NbdError('NBD_URI_INVALID', 'options', peer, `the URI is invalid: ${message}`, { cause });
}
