import { requireNode } from './require-node.ts';

requireNode(); // every entry of the package loads this file, and before its own

/** Bytes that are not what their format promises; the prefix names the format. */
export type FormatErrorCode = `${'BYTES' | 'STREAM' | 'VHD' | 'XVA' | 'CBT' | 'NBD'}_${string}`;

/**
 * Every code that an error of this library carries. Codes are stable: match them, not the messages.
 * Each is explained in `docs/errors.md`.
 */
export type ErrorCode =
  | FormatErrorCode
  // runs
  | 'ABORTED'
  | 'NOT_FOUND'
  | 'PLAN_STALE'
  | 'PLAN_CONFLICT'
  | 'FALLBACK_REFUSED'
  | 'RESTORE_MISMATCH'
  | 'RUN_FAILED'
  // host
  | 'HOST_CALL_FAILED'
  | 'HOST_UNREACHABLE'
  | 'HOST_AUTHENTICATION_FAILED'
  | 'HOST_CERTIFICATE_MISMATCH'
  | 'HOST_ANSWER_INVALID'
  | 'HOST_NOT_SUPPORTED'
  | 'TASK_FAILED'
  | 'TASK_VANISHED'
  | 'TIMEOUT'
  | 'TRANSFER_CUT'
  | 'TRANSFER_FAILED'
  | 'VM_NOT_SUPPORTED'
  | 'HOOK_FAILED'
  | 'QUIESCE_UNAVAILABLE'
  | 'CHAIN_TOO_LONG'
  | 'CBT_UNAVAILABLE'
  | 'CBT_UNTRUSTED'
  | 'NBD_UNAVAILABLE'
  | 'CLEAN_UP_INCOMPLETE'
  | 'DRAFT_TAKEN'
  // store
  | 'REPOSITORY_FORMAT_NEWER'
  | 'REPOSITORY_INVALID'
  | 'REPOSITORY_MISSING'
  | 'STORE_EXISTS'
  | 'STORE_FULL'
  | 'STORE_IO'
  | 'STORE_NAME_INVALID'
  | 'STORE_NOT_FOUND'
  | 'POINT_BROKEN'
  | 'POINT_NEEDED'
  | 'LEASE_HELD'
  | 'LEASE_LOST';

/** What a person or a log needs beside the message: plain, serialisable, free of secrets. */
export type ErrorFacts = Readonly<Record<string, unknown>>;

/** What an error has beside its code and message. */
export interface BackupErrorOptions extends ErrorOptions {
  /**
   * Would the same call, repeated unchanged, have a fair chance?
   * @defaultValue `false`
   */
  readonly retryable?: boolean | undefined;
  /** @defaultValue `{}` */
  readonly facts?: ErrorFacts | undefined;
}

/**
 * The root of every error this library throws about the outside world. Wrong arguments are `TypeError` or
 * `RangeError`; an aborted primitive rejects with `signal.reason`.
 */
export class BackupError extends Error {
  /** A stable name in capitals, see {@link ErrorCode}. */
  readonly code: ErrorCode;
  /** Would the same call, repeated unchanged, have a fair chance? */
  readonly retryable: boolean;
  /** What a person or a log needs beside the message. */
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, message: string, options: BackupErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = new.target.name;
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.facts = options.facts ?? {};
  }
}

/** Where bytes disagree with their format. */
export interface Mismatch {
  /** The structure or field, in the words of the format. */
  readonly what: string;
  /** Where it starts, in bytes from the start of the file or stream. */
  readonly offset: number;
  /** What would have been right. */
  readonly expected: unknown;
  /** What was found. */
  readonly actual: unknown;
  /** Path or other name of what was read, where it is known. */
  readonly file?: string | undefined;
}

/** Bytes from outside that are not what their format promises. */
export class FormatError extends BackupError {
  /** What was wrong, and where. */
  readonly at: Mismatch;

  constructor(code: FormatErrorCode, at: Mismatch, options: BackupErrorOptions = {}) {
    const file = at.file === undefined ? '' : `${at.file}: `;
    super(code, `${file}${at.what} at offset ${at.offset}: expected ${String(at.expected)}, got ${String(at.actual)}`, {
      ...options,
      facts: { ...at, expected: plain(at.expected), actual: plain(at.actual), ...options.facts },
    });
    this.at = at;
  }
}

/** Facts go into reports, and JSON knows no 64-bit integers. */
function plain(value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

/** The host said no. */
export class HostError extends BackupError {
  /** The host's own string, for example `VDI_IN_USE`. */
  readonly xapiCode: string;
  /** The parameters the host gave with it, as it gave them. */
  readonly xapiParams: readonly string[];

  constructor(
    xapiCode: string,
    xapiParams: readonly string[],
    message: string,
    options: BackupErrorOptions & { readonly code?: ErrorCode } = {},
  ) {
    super(options.code ?? 'HOST_CALL_FAILED', message, {
      ...options,
      facts: { xapiCode, xapiParams, ...options.facts },
    });
    this.xapiCode = xapiCode;
    this.xapiParams = xapiParams;
  }
}
