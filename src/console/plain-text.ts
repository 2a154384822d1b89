import { stripVTControlCharacters } from 'node:util';
import { redact } from '../core/index.ts';

// Everything that moves a cursor, breaks a line or turns the direction of writing.
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/**
 * One printable line: names come from the host, where anyone may have put escape sequences into them, and what is
 * printed ends in logs, so secrets go, too.
 */
export function plainText(text: string): string {
  return redact(stripVTControlCharacters(text).replace(UNPRINTABLE, ' '));
}

/** How many columns a text takes, near enough: one for each code point. */
export function textWidth(text: string): number {
  return [...text].length;
}

/** At most `width` columns of a text, with `…` for what is cut off. */
export function cutText(text: string, width: number): string {
  const points = [...text];
  return points.length <= width ? text : `${points.slice(0, Math.max(0, width - 1)).join('')}…`;
}
