/** How a second answer begins that a host appends to the body when its work fails after the first one's 200. */
const MARK = Buffer.from('HTTP/1.1 500', 'latin1');

/** The whole page is about half a kilobyte; we look at this many of the last bytes. */
const TAIL_BYTES = 4096;

/** Looks for a host's error page at the start and in the last bytes of a body that passes by. */
export interface ErrorPageWatch {
  /** Bytes seen so far. */
  readonly length: number;
  see(chunk: Uint8Array): void;
  /** Did the body begin like an error page? */
  atStart(): boolean;
  /** Is there the beginning of an error page among the last bytes? */
  atEnd(): boolean;
}

export function watchForErrorPage(): ErrorPageWatch {
  const start = new Uint8Array(MARK.byteLength);
  let tail: Uint8Array[] = [];
  let tailLength = 0;
  let length = 0;

  return {
    get length() {
      return length;
    },
    see(chunk) {
      if (length < start.byteLength) start.set(chunk.subarray(0, start.byteLength - length), length);
      length += chunk.byteLength;
      const last = new Uint8Array(chunk.subarray(-TAIL_BYTES)); // a copy: the chunk is its receiver's
      if (last.byteLength === TAIL_BYTES) tail = [];
      tail.push(last);
      tailLength = tail.reduce((sum, piece) => sum + piece.byteLength, 0);
      while (tailLength - tail[0]!.byteLength >= TAIL_BYTES) tailLength -= tail.shift()!.byteLength;
    },
    atStart: () => length >= MARK.byteLength && start.every((byte, at) => byte === MARK[at]),
    atEnd: () => Buffer.concat(tail, tailLength).includes(MARK),
  };
}
