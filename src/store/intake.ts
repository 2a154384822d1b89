import { abortableChunks, exactly } from '../bytes/index.ts';
import type { SizedStream } from '../disk/index.ts';

/** What a store writes from. */
export type StoreInput = Uint8Array | SizedStream | AsyncIterable<Uint8Array>;

/**
 * The bytes of any input as chunks. A sized stream is held to its length (`STREAM_LENGTH`). An abort is answered at
 * once, even where the source is stuck.
 */
export async function* intake(
  name: string,
  from: StoreInput,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void> {
  signal?.throwIfAborted();
  if (from instanceof Uint8Array) {
    if (from.byteLength > 0) yield from;
    return;
  }
  const chunks = 'chunks' in from ? exactly(from.length, from.chunks, name) : from;
  for await (const chunk of abortableChunks(chunks, { signal })) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError(`${name}: a stream of bytes gave ${typeof chunk}`);
    yield chunk;
  }
}
