import { exactly } from '../bytes/index.ts';
import { abortable } from '../core/index.ts';
import type { SizedStream } from '../disk/index.ts';

/** What a store writes from. */
export type StoreInput = Uint8Array | SizedStream | AsyncIterable<Uint8Array>;

/**
 * The bytes of any input as chunks. A sized stream is held to its length (`STREAM_LENGTH`). An abort is answered at
 * once, even where the source is stuck: the source is then told to end, but not waited for.
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
  const iterator = ('chunks' in from ? exactly(from.length, from.chunks, name) : from)[Symbol.asyncIterator]();
  let ended = false;
  const pull = async () => {
    try {
      const next = await iterator.next();
      ended = next.done === true;
      return next;
    } catch (error) {
      ended = true;
      throw error;
    }
  };
  try {
    for (;;) {
      const { done, value } = await abortable(pull(), signal);
      if (done === true) return;
      if (!(value instanceof Uint8Array)) throw new TypeError(`${name}: a stream of bytes gave ${typeof value}`);
      yield value;
    }
  } finally {
    if (!ended) {
      const ending = Promise.resolve(iterator.return?.());
      if (signal?.aborted === true)
        ending.catch(() => {}); // a stuck source may never answer; its reason is lost to ours
      else await ending;
    }
  }
}
