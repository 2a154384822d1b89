import { BackupError, type BackupErrorOptions, FormatError, type FormatErrorCode, redact } from '../core/index.ts';

/** How far a connection had come. */
export type NbdStage =
  | 'options'
  | 'connect'
  | 'greeting'
  | 'tls'
  | 'negotiation'
  | 'export'
  | 'transmission'
  | 'disconnect';

/** Whom an error is about. The export name may hold a session reference, so it is redacted before it is shown. */
export interface NbdPeer {
  /** `host:port`, or the path of a Unix socket. */
  readonly server: string;
  /** As it was asked for: a host's holds a reference of a session. */
  readonly exportName: string;
}

/** What an {@link NbdError} has beside its code, stage and message. */
export interface NbdErrorOptions extends BackupErrorOptions {
  /** The protocol's error number, where the server gave one. */
  readonly errno?: number | undefined;
}

/** A failure of an NBD connection or request. Codes begin with `NBD_`. */
export class NbdError extends BackupError {
  declare readonly code: FormatErrorCode;
  /** How far the connection had come. */
  readonly stage: NbdStage;
  /** `host:port`, or the path of a Unix socket. */
  readonly server: string;
  /** The export's name without session references. */
  readonly exportName: string;
  /** The protocol's error number (spec, "Error values"), where the server gave one. */
  readonly errno: number | undefined;

  constructor(
    code: `NBD_${string}`,
    stage: NbdStage,
    peer: NbdPeer,
    message: string,
    { errno, ...options }: NbdErrorOptions = {},
  ) {
    const exportName = redactExportName(peer.exportName);
    super(code, `NBD server ${peer.server}, export "${exportName}", ${stage}: ${redact(message)}`, {
      ...options,
      facts: { stage, server: peer.server, exportName, ...(errno === undefined ? {} : { errno }), ...options.facts },
    });
    this.stage = stage;
    this.server = peer.server;
    this.exportName = exportName;
    this.errno = errno;
  }
}

/** An export's name as it may be shown: no query (XenServer puts the session there), no control characters, short. */
export function redactExportName(name: string): string {
  const query = name.indexOf('?');
  const shown = query < 0 ? redact(name) : `${redact(name.slice(0, query))}?<redacted>`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  const printable = shown.replace(/[\u0000-\u001f\u007f-\u009f]/g, '\ufffd');
  return printable.length > 100 ? `${printable.slice(0, 100)}...` : printable;
}

/** The other side broke the protocol; whoever knows the connection wraps this in an {@link NbdError}. */
export function violation(what: string, expected: unknown, actual: unknown): FormatError {
  return new FormatError('NBD_PROTOCOL', { what, offset: 0, expected, actual });
}

/** The stream ended, or broke, before what was awaited had come. */
export class ConnectionEnded extends Error {
  override readonly name = 'ConnectionEnded';
  /** Did any byte of what was awaited come? */
  readonly partial: boolean;

  constructor(partial: boolean, cause?: Error) {
    super(cause === undefined ? 'the server closed the connection' : `the connection broke: ${cause.message}`, {
      cause,
    });
    this.partial = partial;
  }
}
