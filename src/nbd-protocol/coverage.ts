/** More separate pieces than this in one reply is no server's way of answering a read. */
const MAX_PIECES = 4096;

/** Which bytes of a read have come: a reply may be cut into chunks in any order, but each byte comes once. */
export class Coverage {
  readonly #length: number;
  /** Ends of the covered pieces, ascending, by their starts: `[start, end, start, end, ...]`. */
  readonly #edges: number[] = [];

  constructor(length: number) {
    this.#length = length;
  }

  get complete(): boolean {
    return this.#edges.length === 2 && this.#edges[0] === 0 && this.#edges[1] === this.#length;
  }

  /** Adds `[offset, offset + length)`; false when it leaves the read, overlaps what came before, or is one too many. */
  add(offset: number, length: number): boolean {
    const end = offset + length;
    if (length <= 0 || offset < 0 || end > this.#length) return false;
    const at = this.#firstStartAfter(offset);
    const before = at === 0 ? undefined : this.#edges[at - 1];
    const after = this.#edges[at];
    if ((before !== undefined && before > offset) || (after !== undefined && after < end)) return false;
    const joinsBefore = before === offset;
    const joinsAfter = after === end;
    const edges = [...(joinsBefore ? [] : [offset]), ...(joinsAfter ? [] : [end])];
    this.#edges.splice(joinsBefore ? at - 1 : at, (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0), ...edges);
    return this.#edges.length <= 2 * MAX_PIECES;
  }

  /** Index in `#edges` of the first start greater than `offset`. */
  #firstStartAfter(offset: number): number {
    let low = 0;
    let high = this.#edges.length / 2;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#edges[2 * middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }
}
