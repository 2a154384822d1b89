/** One request of a read, and which part of its answer is wanted. All in bytes. */
export interface ReadPiece {
  readonly offset: number;
  readonly length: number;
  /** Where the wanted part lies within the answer. */
  readonly skip: number;
  readonly take: number;
  /** Where the wanted part goes within the caller's buffer. */
  readonly at: number;
}

/** What a server can be asked for. All in bytes. */
export interface ReadLimits {
  /** Offsets and lengths are multiples of this, except at the end of the disk. */
  readonly alignment: number;
  readonly requestSize: number;
  readonly size: number;
}

/**
 * Cuts a read at multiples of the request size, and widens its ends to the alignment. Pieces that are wanted whole
 * (`length === take`) need no buffer of their own.
 */
export function* planReads(offset: number, length: number, limits: ReadLimits): Generator<ReadPiece, void> {
  const { alignment, requestSize, size } = limits;
  const end = offset + length;
  for (let at = offset; at < end; ) {
    // An end that is not aligned gets a request of its own, so that only that little is copied.
    const alignedEnd = end === size ? end : end - (end % alignment);
    const limit = at % alignment === 0 && at < alignedEnd ? alignedEnd : end;
    const from = at - (at % alignment);
    const cut = at % alignment === 0 ? at - (at % requestSize) + requestSize : from + alignment;
    const to = Math.min(cut, limit);
    const until = Math.min(to % alignment === 0 ? to : to - (to % alignment) + alignment, size);
    yield { offset: from, length: until - from, skip: at - from, take: to - at, at: at - offset };
    at = to;
  }
}

/** The request size to use: ours, within what the server announced, and a multiple of the alignment. */
export function fitRequestSize(wanted: number, alignment: number, maximum: number): number {
  const fitted = Math.min(wanted, maximum);
  return Math.max(fitted - (fitted % alignment), alignment);
}
