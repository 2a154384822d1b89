import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteSource, memorySource, openFileSource } from '../../src/bytes/index.ts';
import type { CallOptions } from '../../src/core/index.ts';
import { tempDir } from './temp-dir.ts';

/** The kinds of source that every reader must get the same answers from. */
export const SOURCE_KINDS = ['memory', 'file'] as const;
export type SourceKind = (typeof SOURCE_KINDS)[number];

/** `bytes` as a source of one kind, inside a running test: a file is removed when the test ends. */
export async function sourceOf(kind: SourceKind, bytes: Uint8Array): Promise<ByteSource> {
  return kind === 'memory' ? memorySource(bytes) : openFileSource(await tempFile(bytes));
}

/** The path of a file with these bytes, removed when the running test ends. */
export async function tempFile(bytes: Uint8Array, name = 'source.bin'): Promise<string> {
  const path = join(await tempDir(), name);
  await writeFile(path, bytes);
  return path;
}

/** How a stream may be cut: in one piece, byte by byte, in odd sizes with empty chunks between. */
export const CHUNKINGS = ['whole', 'one-byte', 'odd'] as const;
export type Chunking = (typeof CHUNKINGS)[number];

/** `bytes` as a stream, cut in the given manner. Every chunk has memory of its own. */
export async function* chunksOf(bytes: Uint8Array, chunking: Chunking = 'whole'): AsyncGenerator<Uint8Array, void> {
  if (chunking === 'whole') yield bytes.slice();
  else if (chunking === 'one-byte') yield* chunksOfSizes(bytes, [1]);
  else yield* chunksOfSizes(bytes, [7, 0, 511, 3, 513, 0, 4097]);
}

/** `bytes` as a stream of chunks of these sizes, in turn, over and over. */
export async function* chunksOfSizes(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array, void> {
  if (!sizes.some((size) => size > 0)) throw new RangeError('at least one size must be positive');
  for (let at = 0, turn = 0; at < bytes.byteLength; turn++) {
    const size = sizes[turn % sizes.length] ?? 0;
    yield bytes.slice(at, at + size);
    at += size;
  }
}

/** `bytes` in chunks of at most `size`, all in the same memory: each is gone once the next one is asked for. */
export async function* chunksInOneMemory(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
  const memory = Buffer.alloc(size); // whose slice() is no copy
  for (let at = 0; at < bytes.byteLength; at += size) {
    const piece = bytes.subarray(at, at + size);
    memory.set(piece);
    yield memory.subarray(0, piece.byteLength);
    memory.fill(0xee);
  }
}

/** Everything a stream gives, in one piece. */
export async function collect(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const chunk of chunks) pieces.push(chunk);
  const bytes = Buffer.concat(pieces);
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What {@link failingSource} rejects with. */
export class InjectedFailure extends Error {
  override readonly name = 'InjectedFailure';
}

export interface FailingSource extends ByteSource {
  /** How many reads were asked for so far: run once without a failure to learn how many there are. */
  readonly reads: number;
  /** Was it closed? */
  readonly closed: boolean;
}

/** A source whose read number `failAt` (from 1) rejects with {@link InjectedFailure}; `Infinity`: none does. */
export function failingSource(source: ByteSource, failAt: number): FailingSource {
  let reads = 0;
  let closed = false;
  const close = async () => {
    closed = true;
    await source.close();
  };
  return {
    size: source.size,
    get reads() {
      return reads;
    },
    get closed() {
      return closed;
    },
    async readInto(target: Uint8Array, offset: number, options?: CallOptions) {
      reads++;
      if (reads === failAt) throw new InjectedFailure(`read ${failAt} at ${offset}`);
      await source.readInto(target, offset, options);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A stream that gives the first `length` bytes and then breaks off with {@link InjectedFailure}. */
export async function* failingChunks(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array, void> {
  yield* chunksOfSizes(bytes.subarray(0, length), [4096]);
  throw new InjectedFailure(`the stream broke after ${length} bytes`);
}

/** Runs `work` over `bytes` failing the 1st, 2nd, 3rd … read; gives every outcome until no read is left to fail. */
export async function failEachRead(
  bytes: Uint8Array,
  work: (source: FailingSource) => Promise<unknown>,
): Promise<{ readonly read: number; readonly error: unknown }[]> {
  const outcomes: { read: number; error: unknown }[] = [];
  for (let read = 1; ; read++) {
    const source = failingSource(memorySource(bytes), read);
    const error = await work(source).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (source.reads < read) return outcomes;
    outcomes.push({ read, error });
  }
}
