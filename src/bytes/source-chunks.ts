import type { CallOptions } from '../core/index.ts';
import type { ByteSource } from './byte-source.ts';
import { memoryRing } from './memory-ring.ts';

/** How much is read at once, and how many reads are under way: together the memory that it takes, in bytes. */
const PIECE = 1024 * 1024;
const READS = 4;

export interface SourceChunksOptions extends CallOptions {
  /**
   * The memory of a chunk is used again when the next one is asked for: for consumers that hold none.
   * @defaultValue `false`
   */
  readonly reuseMemory?: boolean | undefined;
}

/** All bytes of a source in order, in chunks of 1 MiB, read ahead. The source stays open. Memory: 4 MiB. */
export async function* sourceChunks(
  source: ByteSource,
  { reuseMemory = false, signal }: SourceChunksOptions = {},
): AsyncGenerator<Uint8Array, void> {
  const memory = memoryRing(PIECE, reuseMemory);
  const inFlight: Promise<Uint8Array<ArrayBuffer>>[] = [];
  let at = 0;
  const ask = () => {
    if (at >= source.size) return;
    const piece = memory.take(Math.min(PIECE, source.size - at));
    const reading = source.readInto(piece, at, { signal }).then(() => piece);
    reading.catch(() => {}); // not swallowed: awaited below
    inFlight.push(reading);
    at += piece.byteLength;
  };
  try {
    for (let i = 0; i < READS; i++) ask();
    while (inFlight.length > 0) {
      signal?.throwIfAborted();
      const piece = await inFlight.shift()!;
      yield piece;
      memory.give(piece);
      ask();
    }
  } finally {
    await Promise.allSettled(inFlight);
  }
}
