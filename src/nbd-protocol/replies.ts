import { type PendingCommand, RequestRefused } from './command.ts';
import {
  CHUNK,
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  COMMAND,
  ERRNO,
  knownErrno,
  MAX_STATUS_EXTENTS,
  MAX_STRING,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import { violation } from './errors.ts';
import { offset64, SIMPLE_REPLY_SIZE, STRUCTURED_REPLY_SIZE, viewOf } from './messages.ts';
import type { Reading } from './transport.ts';

/** What reading replies needs to know of the connection. */
export interface ReplyContext {
  readonly structured: boolean;
  /** Ids of the metadata contexts, by name. */
  readonly contexts: ReadonlyMap<string, number>;
  /** The command with this cookie, if it is in flight. */
  find(high: number, low: number): PendingCommand | undefined;
  /** The command's reply is complete. */
  finish(low: number): void;
}

/** Replies to cookies that nobody has sent are passed over, so many times. */
const MAX_UNKNOWN_COOKIES = 8;
const MAX_ERROR_CHUNK = 6 + MAX_STRING + 8;
const DISCARD_SIZE = 64 * 1024;

/** Reads replies for as long as the connection lives. Ends by throwing: `FormatError` when the server is wrong. */
export function* readReplies(context: ReplyContext): Reading<never> {
  const head = new Uint8Array(STRUCTURED_REPLY_SIZE);
  const start = head.subarray(0, SIMPLE_REPLY_SIZE);
  const tail = head.subarray(SIMPLE_REPLY_SIZE);
  const view = viewOf(head);
  let unknownCookies = 0;
  for (;;) {
    yield start;
    const magic = view.getUint32(0);
    const low = view.getUint32(12);
    const pending = context.find(view.getUint32(8), low);
    if (magic === SIMPLE_REPLY_MAGIC) {
      if (pending === undefined) throw violation('cookie of a simple reply', 'one in flight', 'another');
      yield* readSimple(context, pending, view.getUint32(4));
      context.finish(low);
      continue;
    }
    if (magic !== STRUCTURED_REPLY_MAGIC || !context.structured) {
      throw violation('magic of a reply', SIMPLE_REPLY_MAGIC.toString(16), magic.toString(16));
    }
    yield tail;
    const flags = view.getUint16(4);
    const type = view.getUint16(6);
    const length = view.getUint32(16);
    if (pending === undefined) {
      if (++unknownCookies > MAX_UNKNOWN_COOKIES) throw violation('cookie of a chunk', 'one in flight', 'another');
      if (length > MAX_ERROR_CHUNK) throw violation('length of a chunk nobody asked for', MAX_ERROR_CHUNK, length);
      yield* discard(length);
      continue;
    }
    yield* readChunk(context, pending, type, length);
    if ((flags & CHUNK_DONE) === 0) {
      if (type === CHUNK.NONE) throw violation('flags of an empty chunk', 'DONE', flags);
      continue;
    }
    settle(pending);
    context.finish(low);
  }
}

function* readSimple({ structured }: ReplyContext, pending: PendingCommand, errno: number): Reading<void> {
  const { type, length } = pending.command;
  if (errno !== 0) return pending.fail(new RequestRefused(knownErrno(errno), ''));
  if (structured && (type === COMMAND.READ || type === COMMAND.BLOCK_STATUS)) {
    throw violation('successful reply to a read', 'a structured one', 'a simple one');
  }
  if (type === COMMAND.READ) yield* receive(pending, 0, length);
  pending.succeed();
}

/** All chunks of a reply have come: do they make an answer? */
function settle(pending: PendingCommand): void {
  const { command, coverage, errno, errorText } = pending;
  if (errno !== undefined) {
    pending.fail(new RequestRefused(errno, errorText));
    return;
  }
  if (command.type === COMMAND.READ && !coverage.complete) {
    // A success that does not cover the read is a lie; taking it would corrupt the copy.
    throw violation('data of a reply', `all ${command.length} bytes`, 'less');
  }
  pending.succeed();
}

function* readChunk(context: ReplyContext, pending: PendingCommand, type: number, length: number): Reading<void> {
  const isRead = pending.command.type === COMMAND.READ;
  switch (type) {
    case CHUNK.NONE:
      if (length !== 0) throw violation('length of an empty chunk', 0, length);
      return;
    case CHUNK.OFFSET_DATA:
      if (!isRead) break;
      return yield* readData(pending, length);
    case CHUNK.OFFSET_HOLE:
      if (!isRead) break;
      return yield* readHole(pending, length);
    case CHUNK.BLOCK_STATUS:
      if (pending.command.type !== COMMAND.BLOCK_STATUS) break;
      return yield* readStatus(context, pending, length);
    default:
      if ((type & CHUNK_ERROR_BIT) !== 0) return yield* readError(pending, type, length);
  }
  throw violation(`type of a chunk for command ${pending.command.type}`, 'one that fits', `0x${type.toString(16)}`);
}

function* readData(pending: PendingCommand, length: number): Reading<void> {
  if (length < 9 || length - 8 > pending.command.length) {
    throw violation('length of a data chunk', `9 to ${pending.command.length + 8}`, length);
  }
  const bytes = new Uint8Array(8);
  yield bytes;
  const at = cover(pending, offset64(viewOf(bytes), 0), length - 8);
  yield* receive(pending, at, length - 8);
}

function* readHole(pending: PendingCommand, length: number): Reading<void> {
  if (length !== 12) throw violation('length of a hole chunk', 12, length);
  const bytes = new Uint8Array(12);
  yield bytes;
  const view = viewOf(bytes);
  const size = view.getUint32(8);
  const at = cover(pending, offset64(view, 0), size);
  if (!pending.abandoned) pending.command.target!.subarray(at, at + size).fill(0);
}

/** Marks a part of the read as come; returns where it starts within the read. */
function cover(pending: PendingCommand, offset: number, length: number): number {
  const at = offset - pending.command.offset;
  if (pending.coverage.add(at, length)) return at;
  const { command } = pending;
  const within = `once, within ${command.length} bytes at ${command.offset}`;
  throw violation('data of a chunk', within, `${length} bytes at ${offset}`);
}

function* readStatus({ contexts }: ReplyContext, pending: PendingCommand, length: number): Reading<void> {
  if (length < 12 || length % 8 !== 4 || length > 4 + 8 * MAX_STATUS_EXTENTS) {
    throw violation('length of a block status chunk', `4 + 8n, up to ${4 + 8 * MAX_STATUS_EXTENTS}`, length);
  }
  const bytes = new Uint8Array(length);
  yield bytes;
  const view = viewOf(bytes);
  const { context = '' } = pending.command;
  if (view.getUint32(0) !== contexts.get(context)) return; // another context's: if ours does not come, nothing was learned
  if (pending.extents.length > 0) throw violation('block status chunks of one context', 1, 2);
  const extents: { length: number; flags: number }[] = [];
  for (let at = 4; at < length; at += 8) {
    const extent = { length: view.getUint32(at), flags: view.getUint32(at + 4) };
    if (extent.length === 0) throw violation('length of an extent', 'more than 0', 0);
    extents.push(extent);
  }
  pending.extents = extents;
}

/** Error chunks of unknown type count, too. The first error is kept. */
function* readError(pending: PendingCommand, type: number, length: number): Reading<void> {
  if (length > MAX_ERROR_CHUNK) throw violation('length of an error chunk', `at most ${MAX_ERROR_CHUNK}`, length);
  const bytes = new Uint8Array(length);
  yield bytes;
  const known = type === CHUNK.ERROR || type === CHUNK.ERROR_OFFSET;
  if (length < 6) {
    if (known) throw violation('length of an error chunk', 'at least 6', length);
    pending.errno ??= ERRNO.EIO;
    return;
  }
  const view = viewOf(bytes);
  const errno = view.getUint32(0);
  const textLength = view.getUint16(4);
  const expected = 6 + textLength + (type === CHUNK.ERROR_OFFSET ? 8 : 0);
  if (known ? expected !== length : expected > length) throw violation('length of an error chunk', expected, length);
  if (known && errno === 0) throw violation('error number', 'not 0', 0);
  pending.errno ??= known ? knownErrno(errno) : ERRNO.EIO;
  if (pending.errorText === '') pending.errorText = Buffer.from(bytes.buffer, 6, textLength).toString('utf8');
}

/** Receives data where it belongs, or nowhere if the read was given up. */
function* receive(pending: PendingCommand, at: number, length: number): Reading<void> {
  const target = pending.land(at, length);
  if (target === undefined) return yield* discard(length);
  try {
    yield target;
  } finally {
    pending.landed();
  }
}

function* discard(length: number): Reading<void> {
  const scratch = new Uint8Array(Math.min(length, DISCARD_SIZE));
  for (let left = length; left > 0; left -= scratch.byteLength)
    yield scratch.subarray(0, Math.min(left, scratch.byteLength));
}
