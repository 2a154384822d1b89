import { type Field, raw, type Shape, size64, struct, u16, u32, u64 } from '../bytes/index.ts';
import {
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';

/** Server to client, first of all. What follows depends on `styleMagic`. */
export const greeting = struct('NBD greeting', 16, { initMagic: u64, styleMagic: u64 });
/** What follows a newstyle greeting. */
export const newstyleFlags = struct('NBD handshake flags', 2, { flags: u16 });
/** What follows an oldstyle greeting. */
export const oldstyleExport = struct('NBD oldstyle greeting', 136, { size: size64, flags: u32, zeroes: raw(124) });
export const clientFlags = struct('NBD client flags', 4, { flags: u32 });
export const optionRequest = struct('NBD option', 16, { magic: u64, option: u32, length: u32 });
export const optionReply = struct('NBD option reply', 20, { magic: u64, option: u32, type: u32, length: u32 });
/** The answer to EXPORT_NAME; 124 zero bytes follow unless NO_ZEROES was agreed. */
export const exportNameReply = struct('NBD export', 10, { size: size64, flags: u16 });
export const infoExport = struct('NBD_INFO_EXPORT', 12, { type: u16, size: size64, flags: u16 });
export const infoBlockSize = struct('NBD_INFO_BLOCK_SIZE', 14, {
  type: u16,
  minimum: u32,
  preferred: u32,
  maximum: u32,
} satisfies Record<string, Field<number>>);

/** Zero bytes after the answer to EXPORT_NAME. */
export const EXPORT_NAME_PADDING = 124;
export const REQUEST_SIZE = 28;
export const SIMPLE_REPLY_SIZE = 16;
export const STRUCTURED_REPLY_SIZE = 20;

export type OptionHeader = Shape<{ option: typeof u32; length: typeof u32 }>;

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return joinBytes(optionRequest.encode({ magic: OPTION_MAGIC, option, length: data.byteLength }), data);
}

export function encodeOptionReply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return joinBytes(optionReply.encode({ magic: OPTION_REPLY_MAGIC, option, type, length: data.byteLength }), data);
}

/** Small messages only: the parts are copied. */
export function joinBytes(...parts: Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.byteLength;
  }
  return joined;
}

export function u16Bytes(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

export function u32Bytes(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** Text after its length in 32 bits. */
export function stringBytes(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'utf8');
  return joinBytes(u32Bytes(bytes.byteLength), bytes);
}

/**
 * A request's identity: two halves of 32 bits, so that no BigInt is made for each request. The client alone gives them
 * a meaning.
 */
export interface Cookie {
  readonly high: number;
  readonly low: number;
}

/** A request as it stands on the wire; the data of a WRITE follows. */
export interface RequestHeader extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** In bytes. More than 2^53 - 1 is kept as `Infinity`: no disk reaches that far. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

export function encodeRequest(request: RequestHeader): Uint8Array {
  const bytes = new Uint8Array(REQUEST_SIZE);
  const view = viewOf(bytes);
  view.setUint32(0, REQUEST_MAGIC);
  view.setUint16(4, request.flags);
  view.setUint16(6, request.type);
  view.setUint32(8, request.high);
  view.setUint32(12, request.low);
  view.setUint32(16, Math.floor(request.offset / 2 ** 32));
  view.setUint32(20, request.offset % 2 ** 32);
  view.setUint32(24, request.length);
  return bytes;
}

/** Decodes a request; the magic is the caller's to check. */
export function decodeRequest(bytes: Uint8Array): RequestHeader & { readonly magic: number } {
  const view = viewOf(bytes);
  return {
    magic: view.getUint32(0),
    flags: view.getUint16(4),
    type: view.getUint16(6),
    high: view.getUint32(8),
    low: view.getUint32(12),
    offset: offset64(view, 16),
    length: view.getUint32(24),
  };
}

export function encodeSimpleReply(errno: number, { high, low }: Cookie): Uint8Array {
  const bytes = new Uint8Array(SIMPLE_REPLY_SIZE);
  const view = viewOf(bytes);
  view.setUint32(0, SIMPLE_REPLY_MAGIC);
  view.setUint32(4, errno);
  view.setUint32(8, high);
  view.setUint32(12, low);
  return bytes;
}

/** A chunk's header; `length` bytes of payload follow. */
export function encodeChunkHeader(flags: number, type: number, { high, low }: Cookie, length: number): Uint8Array {
  const bytes = new Uint8Array(STRUCTURED_REPLY_SIZE);
  const view = viewOf(bytes);
  view.setUint32(0, STRUCTURED_REPLY_MAGIC);
  view.setUint16(4, flags);
  view.setUint16(6, type);
  view.setUint32(8, high);
  view.setUint32(12, low);
  view.setUint32(16, length);
  return bytes;
}

/** A 64-bit offset; beyond 2^53 - 1 it becomes `Infinity`, which no range check lets pass. */
export function offset64(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

export function offsetBytes(offset: number): Uint8Array {
  return joinBytes(u32Bytes(Math.floor(offset / 2 ** 32)), u32Bytes(offset % 2 ** 32));
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
