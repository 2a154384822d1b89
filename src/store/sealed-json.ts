import { hash } from 'node:crypto';
import { FieldError } from './fields.ts';

/** The seal stands last, so its place is known: 64 digits, then this. */
const TAIL = '"\n}\n';
const DIGITS = 64;
const OPEN = '0'.repeat(DIGITS);

/**
 * JSON text that tells by itself whether it is as it was written: the last field, `seal`, is the SHA-256 of the file as it
 * is with 64 zeros in that place.
 */
export function encodeSealed(value: object): Uint8Array {
  const bytes = Buffer.from(`${JSON.stringify({ ...value, seal: OPEN }, undefined, 2)}\n`);
  bytes.write(hash('sha256', bytes, 'hex'), sealAt(bytes), 'latin1');
  return bytes;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** The value in JSON text, its seal not looked at yet. Throws {@link FieldError} for text that is no JSON. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (error) {
    throw new FieldError('', 'JSON', error instanceof Error ? error.message : error);
  }
}

/** Throws {@link FieldError} where the text is not as {@link encodeSealed} wrote it. */
export function checkSeal(bytes: Uint8Array): void {
  const open = Buffer.from(bytes);
  const at = sealAt(open);
  const found = open.toString('latin1', Math.max(at, 0), at + DIGITS);
  open.fill(OPEN, Math.max(at, 0), Math.max(at + DIGITS, 0), 'latin1');
  const expected = hash('sha256', open, 'hex');
  if (found !== expected) throw new FieldError('seal', `${expected}, the SHA-256 of the rest`, found);
}

function sealAt(bytes: Uint8Array): number {
  return bytes.byteLength - TAIL.length - DIGITS;
}
