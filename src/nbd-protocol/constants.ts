/**
 * The numbers of the NBD protocol (NetworkBlockDevice/nbd, `doc/proto.md`), for both ends. All are big-endian on the
 * wire.
 */

/** "NBDMAGIC" */
export const INIT_MAGIC = 0x4e42444d41474943n;
/** "IHAVEOPT": newstyle greeting, and the start of every option request. */
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OLDSTYLE_MAGIC = 0x0000420281861253n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** The port registered for NBD. */
export const NBD_PORT = 10809;

/** Suites for pre-shared keys, in OpenSSL's words: those of TLS 1.3 take either, below it only keys are offered. */
export const PSK_CIPHERS =
  'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE-PSK:DHE-PSK:PSK';

/** Handshake flags; the client's have the same bits. */
export const HANDSHAKE = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

/** Bit 31 marks an error. */
const ERROR = 0x80000000;

export const REPLY = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: ERROR + 1,
  ERR_POLICY: ERROR + 2,
  ERR_INVALID: ERROR + 3,
  ERR_PLATFORM: ERROR + 4,
  ERR_TLS_REQD: ERROR + 5,
  ERR_UNKNOWN: ERROR + 6,
  ERR_SHUTDOWN: ERROR + 7,
  ERR_BLOCK_SIZE_REQD: ERROR + 8,
  ERR_TOO_BIG: ERROR + 9,
} as const;

export function isErrorReply(type: number): boolean {
  return type >= ERROR;
}

export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Transmission flags. */
export const TRANSMISSION = {
  HAS_FLAGS: 0x1,
  READ_ONLY: 0x2,
  SEND_FLUSH: 0x4,
  SEND_FUA: 0x8,
  ROTATIONAL: 0x10,
  SEND_TRIM: 0x20,
  SEND_WRITE_ZEROES: 0x40,
  SEND_DF: 0x80,
  CAN_MULTI_CONN: 0x100,
  SEND_CACHE: 0x400,
  SEND_FAST_ZERO: 0x800,
} as const;

export const COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const COMMAND_FLAG = { FUA: 0x1, NO_HOLE: 0x2, DF: 0x4, REQ_ONE: 0x8, FAST_ZERO: 0x10 } as const;

/** Structured reply chunks. */
export const CHUNK = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

export const CHUNK_DONE = 1;
/** Bit 15 of a chunk's type marks an error, also in types that we do not know. */
export const CHUNK_ERROR_BIT = 0x8000;

export const ERRNO = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

const ERRNO_NAMES = new Map<number, string>(Object.entries(ERRNO).map(([name, value]) => [value, name]));

/** A number the protocol does not define counts as EINVAL (spec, "Error values"). */
export function knownErrno(errno: number): number {
  return ERRNO_NAMES.has(errno) ? errno : ERRNO.EINVAL;
}

export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/** The metadata context that tells holes and zeros. */
export const BASE_ALLOCATION = 'base:allocation';
/** The id our server gives it. */
export const SERVED_ALLOCATION_ID = 1;
export const ALLOCATION = { HOLE: 1, ZERO: 2 } as const;

/** Longest string of the protocol, in bytes (spec, "Conventions"). */
export const MAX_STRING = 4096;
/** A payload that neither side takes for an attack (spec, "Size constraints"), in bytes. */
export const MAX_PAYLOAD = 32 * 1024 * 1024;
/** Our limit for the data of one option or option reply, in bytes. */
export const MAX_OPTION_DATA = 64 * 1024;
/** A server should not send more extents in one chunk (spec, "NBD_REPLY_TYPE_BLOCK_STATUS"). */
export const MAX_STATUS_EXTENTS = 2 ** 20;
