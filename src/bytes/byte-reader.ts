import { type CallOptions, FormatError } from '../core/index.ts';
import type { Struct } from './struct.ts';

/** Exact reads from a stream of chunks of any size, in one forward pass, holding no more than the chunk at hand. */
export interface ByteReader extends AsyncDisposable {
  /** How many bytes were taken so far. */
  readonly offset: number;
  /** Fills `target` whole, or rejects with `STREAM_ENDED`: never short. */
  readInto(target: Uint8Array): Promise<void>;
  /** `length` bytes in memory of their own; the caller has checked `length`. */
  read(length: number, what?: string): Promise<Uint8Array>;
  readStruct<T>(codec: Struct<T>): Promise<T>;
  /** Passes over `length` bytes. */
  skip(length: number): Promise<void>;
  /** Resolves with `true` when the stream has ended and all of it was taken. */
  ended(): Promise<boolean>;
  /** Hands the rest of the stream on, as chunks. */
  rest(): AsyncGenerator<Uint8Array, void>;
  /** Tells the stream that nobody will read on. */
  close(): Promise<void>;
}

/** Reads `chunks` exactly. `what` names the stream in errors. The signal is checked between chunks. */
export function byteReader(
  chunks: AsyncIterable<Uint8Array>,
  what = 'stream',
  { signal }: CallOptions = {},
): ByteReader {
  const iterator = chunks[Symbol.asyncIterator]();
  let chunk: Uint8Array = new Uint8Array(0);
  let offset = 0;
  let done = false;

  /** Makes sure that `chunk` holds a byte; false at the end of the stream. */
  async function fill(): Promise<boolean> {
    while (chunk.byteLength === 0 && !done) {
      signal?.throwIfAborted();
      const next = await iterator.next();
      if (next.done === true) done = true;
      else chunk = next.value;
    }
    return chunk.byteLength > 0;
  }

  function take(length: number): Uint8Array {
    const piece = chunk.subarray(0, length);
    chunk = chunk.subarray(piece.byteLength);
    offset += piece.byteLength;
    return piece;
  }

  function endedEarly(name: string, wanted: number, got: number): FormatError {
    return new FormatError(
      'STREAM_ENDED',
      { what: name, offset: offset - got, expected: `${wanted} bytes`, actual: `the end after ${got}` },
      { retryable: true },
    );
  }

  async function readInto(target: Uint8Array, name = what): Promise<void> {
    for (let at = 0; at < target.byteLength; ) {
      if (!(await fill())) throw endedEarly(name, target.byteLength, at);
      const piece = take(target.byteLength - at);
      target.set(piece, at);
      at += piece.byteLength;
    }
  }

  async function read(length: number, name = what): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await readInto(bytes, name);
    return bytes;
  }

  async function close(): Promise<void> {
    done = true;
    chunk = new Uint8Array(0);
    await iterator.return?.();
  }

  return {
    get offset() {
      return offset;
    },
    readInto: (target) => readInto(target),
    read,
    readStruct: async (codec) => {
      const base = offset;
      return codec.decode(await read(codec.size, codec.name), base);
    },
    async skip(length) {
      for (let left = length; left > 0; ) {
        if (!(await fill())) throw endedEarly(what, length, length - left);
        left -= take(left).byteLength;
      }
    },
    ended: async () => !(await fill()),
    async *rest() {
      while (await fill()) yield take(chunk.byteLength);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
