/**
 * Bytes that arrive in pieces, and are taken as if all were there: what takes them is a generator, which stops where it
 * needs the next piece and goes on when it was given. So one and the same reading serves streams, files and bytes that
 * only pass by.
 */
export class Intake {
  /** How many bytes were taken or passed over so far: where in the archive the next one is. */
  offset = 0;
  #piece: Uint8Array = new Uint8Array(0);
  #toSkip = 0;
  #ended = false;

  /** Has the archive no byte left? Only known when it was asked for one. */
  get ended(): boolean {
    return this.#ended && this.#piece.byteLength === 0;
  }

  /** How many bytes of what is to be given next nobody wants: a source at random access need not read them. */
  get toSkip(): number {
    return this.#toSkip;
  }

  /** The next piece. It is not kept longer than until the next one is asked for. */
  give(piece: Uint8Array): void {
    const skipped = Math.min(this.#toSkip, piece.byteLength);
    this.#toSkip -= skipped;
    this.#piece = piece.subarray(skipped);
  }

  /** Says that the source itself passed over what is `toSkip`. */
  skipped(): void {
    this.#toSkip = 0;
  }

  /** No piece will come any more. */
  end(): void {
    this.#ended = true;
  }

  /** Passes over `length` bytes; those that have not arrived when they do. */
  skip(length: number): void {
    const here = Math.min(length, this.#piece.byteLength);
    this.#piece = this.#piece.subarray(here);
    this.#toSkip += length - here;
    this.offset += length;
  }

  /** The next bytes, at least one and at most `most`, as a view of a piece; none at the archive's end. */
  *some(most: number): Generator<undefined, Uint8Array, void> {
    while (this.#piece.byteLength === 0 && !this.#ended) yield undefined;
    const taken = this.#piece.subarray(0, most);
    this.#piece = this.#piece.subarray(taken.byteLength);
    this.offset += taken.byteLength;
    return taken;
  }

  /** Fills `target`; resolves with how many bytes there were. */
  *fill(target: Uint8Array): Generator<undefined, number, void> {
    let filled = 0;
    while (filled < target.byteLength) {
      const taken = yield* this.some(target.byteLength - filled);
      if (taken.byteLength === 0) break;
      target.set(taken, filled);
      filled += taken.byteLength;
    }
    return filled;
  }

  /** `length` bytes, as a view where they lie in one piece, else in `scratch`; fewer at the archive's end. */
  *exactly(length: number, scratch: Uint8Array): Generator<undefined, Uint8Array, void> {
    const first = yield* this.some(length);
    if (first.byteLength === length || first.byteLength === 0) return first;
    scratch.set(first);
    const more = yield* this.fill(scratch.subarray(first.byteLength, length));
    return scratch.subarray(0, first.byteLength + more);
  }
}
