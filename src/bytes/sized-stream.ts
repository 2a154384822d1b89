import { FormatError } from '../core/index.ts';

/** A stream whose length is known before its first byte: hosts demand an exact `Content-Length`. */
export interface SizedStream {
  /** In bytes. */
  readonly length: number;
  /** A chunk belongs to whoever received it: it may still be on its way when the next one is asked for. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Passes `chunks` on and holds them to `length`: one byte more or less is `STREAM_LENGTH`. */
export async function* exactly(
  length: number,
  chunks: AsyncIterable<Uint8Array>,
  what = 'stream',
): AsyncGenerator<Uint8Array, void> {
  let sent = 0;
  for await (const chunk of chunks) {
    if (sent + chunk.byteLength > length) {
      throw new FormatError('STREAM_LENGTH', { what, offset: sent, expected: length, actual: sent + chunk.byteLength });
    }
    sent += chunk.byteLength;
    yield chunk;
  }
  if (sent !== length) throw new FormatError('STREAM_LENGTH', { what, offset: sent, expected: length, actual: sent });
}
