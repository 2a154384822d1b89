import { abortable, type CallOptions } from '../core/index.ts';

/**
 * Passes `chunks` on. An abort is answered at once, even where the source is stuck: the source is then told to end, but
 * not waited for. Leaving the loop early, or a failure of the loop, ends the source and waits for it.
 */
export async function* abortableChunks<T>(
  chunks: AsyncIterable<T>,
  { signal }: CallOptions = {},
): AsyncGenerator<T, void> {
  signal?.throwIfAborted();
  const iterator = chunks[Symbol.asyncIterator]();
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
      const next = await abortable(pull(), signal);
      if (next.done === true) return;
      yield next.value;
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
