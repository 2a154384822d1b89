import { anySignal } from '../core/index.ts';
import type { Extent } from '../disk/index.ts';
import type { NbdContextExtent } from './command.ts';
import { ALLOCATION } from './constants.ts';

/** Block status is asked for in windows of so many bytes: what a signed length of 32 bits still holds. */
export const STATUS_WINDOW = 2 * 1024 * 1024 * 1024 - 1024 * 1024;
/** So many of them are asked for at a time, at most: an empty disk of 2 TiB is a thousand answers to wait for. */
const AHEAD = 8;
/** Where an answer has so many extents, the next window is asked for when they are used up: memory. So the first is, too. */
const MANY_EXTENTS = 4096;

/** What a server tells of a range, from its start on; empty where it tells nothing. */
type Ask = (offset: number, length: number, signal: AbortSignal) => Promise<readonly NbdContextExtent[]>;

interface Range {
  readonly offset: number;
  readonly end: number;
}

interface Window extends Range {
  /** To the first question about it. */
  readonly answer: ReturnType<Ask>;
}

/**
 * The extents of a range by `base:allocation`, ascending and adjacent. A server may tell less than it was asked for, and
 * is asked on; where it tells nothing, the rest of a window may be data. Leaving the loop early cancels what is asked.
 */
export async function* extentsOfWindows(
  { offset, end }: Range,
  ask: Ask,
  signal: AbortSignal | undefined,
): AsyncGenerator<Extent, void> {
  const stop = new AbortController();
  const linked = anySignal(signal, stop.signal)!;
  const asked: Window[] = [];
  let next = offset;
  let ahead = 1;
  try {
    while (asked.length > 0 || next < end) {
      while (asked.length < ahead && next < end) {
        const window = { offset: next, end: Math.min(next + STATUS_WINDOW, end) };
        const answer = ask(window.offset, window.end - window.offset, linked);
        answer.catch(() => {}); // not swallowed: awaited below
        asked.push({ ...window, answer });
        next = window.end;
      }
      signal?.throwIfAborted();
      const window = asked.shift()!;
      const first = await window.answer;
      ahead = first.length < MANY_EXTENTS ? AHEAD : 1;
      yield* extentsOfWindow(window, first, ask, linked);
    }
  } finally {
    stop.abort();
    await Promise.allSettled(asked.map(({ answer }) => answer));
  }
}

async function* extentsOfWindow(
  { offset, end }: Range,
  first: readonly NbdContextExtent[],
  ask: Ask,
  signal: AbortSignal,
): AsyncGenerator<Extent, void> {
  let at = offset;
  for (let told = first; ; told = await ask(at, end - at, signal)) {
    for (const { offset: start, length, flags } of told) {
      yield { offset: start, length, kind: (flags & ALLOCATION.ZERO) !== 0 ? 'zero' : 'data' };
      at = start + length;
    }
    if (at === end) return;
    if (told.length === 0) break;
  }
  yield { offset: at, length: end - at, kind: 'data' };
}
