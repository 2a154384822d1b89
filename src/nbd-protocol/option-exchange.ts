import { redact } from '../core/index.ts';
import { isErrorReply, MAX_OPTION_DATA, MAX_STRING, OPTION_REPLY_MAGIC, REPLY } from './constants.ts';
import { violation } from './errors.ts';
import { encodeOption, optionReply, viewOf } from './messages.ts';
import type { Reading, Transport } from './transport.ts';

/** One reply to an option. */
export interface OptionReply {
  readonly type: number;
  readonly data: Uint8Array;
}

/** How an option ended. */
export type OptionOutcome =
  | { readonly ok: true; readonly replies: readonly OptionReply[] }
  | { readonly ok: false; readonly type: number; readonly message: string };

export interface OptionRules {
  /** Types of replies that may come before the last. */
  readonly allowed?: readonly number[];
  /** How many of them, at most. */
  readonly limit?: number;
}

/** Sends one option and reads its replies to the last: the next option may be sent then, not before. */
export async function exchangeOption(
  transport: Transport,
  option: number,
  data: Uint8Array = new Uint8Array(0),
  rules: OptionRules = {},
): Promise<OptionOutcome> {
  transport.write(encodeOption(option, data));
  return transport.read(readReplies(option, rules));
}

function* readReplies(option: number, { allowed = [], limit = 64 }: OptionRules): Reading<OptionOutcome> {
  const replies: OptionReply[] = [];
  for (;;) {
    const reply = yield* readReply(option);
    if (reply.type === REPLY.ACK) {
      if (reply.data.byteLength !== 0) throw violation('length of an ACK', 0, reply.data.byteLength);
      return { ok: true, replies };
    }
    if (isErrorReply(reply.type)) return { ok: false, type: reply.type, message: textOf(reply.data) };
    if (!allowed.includes(reply.type)) throw violation(`type of a reply to option ${option}`, allowed, reply.type);
    if (replies.length === limit) throw violation(`replies to option ${option}`, `at most ${limit}`, `${limit + 1}`);
    replies.push(reply);
  }
}

function* readReply(option: number): Reading<OptionReply> {
  const bytes = new Uint8Array(optionReply.size);
  yield bytes;
  const head = optionReply.decode(bytes);
  if (head.magic !== OPTION_REPLY_MAGIC) {
    throw violation('magic of an option reply', OPTION_REPLY_MAGIC.toString(16), head.magic.toString(16));
  }
  if (head.option !== option) throw violation('option answered', option, head.option);
  if (head.length > MAX_OPTION_DATA) {
    throw violation('length of an option reply', `at most ${MAX_OPTION_DATA}`, head.length);
  }
  const data = new Uint8Array(head.length);
  yield data;
  return { type: head.type, data };
}

/** A server's message for people, fit to be shown. */
function textOf(data: Uint8Array): string {
  return redact(Buffer.from(data.buffer, data.byteOffset, Math.min(data.byteLength, MAX_STRING)).toString('utf8'));
}

/** Text with its length in 32 bits before it, as in REP_SERVER; returns it and what follows. */
export function takeString(data: Uint8Array, what: string): { text: string; rest: Uint8Array } {
  if (data.byteLength < 4) throw violation(what, 'at least 4 bytes', data.byteLength);
  const length = viewOf(data).getUint32(0);
  if (length > data.byteLength - 4 || length > MAX_STRING) {
    throw violation(`length of the string in ${what}`, `at most ${Math.min(data.byteLength - 4, MAX_STRING)}`, length);
  }
  const text = Buffer.from(data.buffer, data.byteOffset + 4, length).toString('utf8');
  return { text, rest: data.subarray(4 + length) };
}

const REPLY_NAMES = new Map<number, string>(Object.entries(REPLY).map(([name, type]) => [type, name]));

/** `ERR_POLICY (the server says ...)`. */
export function describeRefusal({ type, message }: { type: number; message: string }): string {
  const name = REPLY_NAMES.get(type) ?? `reply type 0x${type.toString(16)}`;
  return message === '' ? name : `${name} (${message})`;
}
