import { type Clock, systemClock } from '../core/index.ts';
import type { NbdOptions, NbdReconnectOptions, NbdTimeouts, NbdTlsOptions } from './client-options.ts';
import { MAX_STRING, NBD_PORT } from './constants.ts';
import { NbdError, type NbdErrorOptions, type NbdPeer, type NbdStage } from './errors.ts';
import { parseNbdUri } from './uri.ts';

type Filled<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> };

/** Options with their defaults filled in. */
export interface Settings {
  readonly peer: NbdPeer;
  readonly address: { readonly host: string; readonly port: number } | { readonly socketPath: string };
  readonly exportName: string;
  /** Metadata contexts to ask for beside `base:allocation`. */
  readonly contexts: readonly string[];
  readonly tls: NbdTlsOptions | undefined;
  readonly profile: 'standard' | 'xenserver';
  readonly connections: number;
  readonly requestSize: number;
  readonly maxInFlight: number;
  readonly timeouts: Filled<NbdTimeouts>;
  readonly reconnect: Filled<NbdReconnectOptions>;
  readonly onRetry: NonNullable<NbdOptions['onRetry']>;
  readonly acquireSlot: NonNullable<NbdOptions['acquireSlot']>;
  readonly awaitTurn: NonNullable<NbdOptions['awaitTurn']>;
  readonly clock: Clock;
  /** Makes an error that names this server and export. */
  fail(code: `NBD_${string}`, stage: NbdStage, message: string, options?: NbdErrorOptions): NbdError;
}

const TIMEOUTS: Filled<NbdTimeouts> = {
  connectMs: 10_000,
  greetingMs: 30_000,
  tlsMs: 30_000,
  optionMs: 30_000,
  exportMs: 120_000,
  stallMs: 60_000,
  disconnectMs: 60_000,
};
const RECONNECT: Filled<NbdReconnectOptions> = { tries: 5, delayMs: 1000, maxDelayMs: 30_000, totalMs: 300_000 };

/** Fills in defaults, from a URI, options, or both; options win. */
export function settingsOf(target: string | NbdOptions, more: NbdOptions = {}): Settings {
  const options: NbdOptions = typeof target === 'string' ? { ...optionsOfUri(target), ...given(more) } : target;
  const { profile = 'standard', exportName = '', host = 'localhost', port = NBD_PORT, socketPath } = options;
  const xenserver = profile === 'xenserver';
  const nameLength = Buffer.byteLength(exportName);
  if (nameLength > MAX_STRING || exportName.includes('\0')) {
    throw new RangeError(`NBD: the export name has ${nameLength} bytes, at most ${MAX_STRING} and no NUL are allowed`);
  }
  const peer = { server: socketPath ?? (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`), exportName };
  return {
    peer,
    address: socketPath === undefined ? { host, port } : { socketPath },
    exportName,
    contexts: options.contexts ?? [],
    tls: options.tls,
    profile,
    connections: positive('connections', options.connections ?? (xenserver ? 2 : 1)),
    requestSize: positive('requestSize', options.requestSize ?? 1024 * 1024),
    maxInFlight: positive('maxInFlight', options.maxInFlight ?? (xenserver ? 4 : 16)),
    timeouts: { ...TIMEOUTS, ...given(options.timeouts ?? {}) },
    reconnect: { ...RECONNECT, ...given(options.reconnect ?? {}) },
    onRetry: options.onRetry ?? (() => {}),
    acquireSlot: options.acquireSlot ?? (async () => () => {}),
    awaitTurn: options.awaitTurn ?? (async () => () => {}),
    clock: options.clock ?? systemClock,
    fail: (code, stage, message, errorOptions) => new NbdError(code, stage, peer, message, errorOptions),
  };
}

function optionsOfUri(text: string): NbdOptions {
  const uri = parseNbdUri(text);
  if (uri.unknownParameters.length > 0) {
    const peer = { server: uri.socketPath ?? `${uri.host}:${uri.port}`, exportName: uri.exportName };
    const names = uri.unknownParameters.join(', ');
    throw new NbdError('NBD_URI_INVALID', 'options', peer, `the URI has parameters we do not know: ${names}`);
  }
  const tls: NbdTlsOptions = {
    ...(uri.tlsHostname === undefined ? {} : { servername: uri.tlsHostname }),
    ...(uri.tlsVerifyPeer === false ? { insecure: true } : {}),
  };
  return {
    host: uri.host,
    port: uri.port,
    socketPath: uri.socketPath,
    exportName: uri.exportName,
    ...(uri.tls ? { tls } : {}),
  };
}

/** Without the members that are `undefined`, which must not hide a default. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function positive(name: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new RangeError(`NBD: ${name} ${value} is not a positive integer`);
  return value;
}
