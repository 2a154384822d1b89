import type { Transform } from 'node:stream';
import zlib from 'node:zlib';

/** How to compress an archive as a whole. */
export interface CompressOptions {
  /** @defaultValue none */
  readonly compression?: 'gzip' | 'zstd' | undefined;
  /** @defaultValue the compressor's: 6 of gzip, 3 of zstd */
  readonly level?: number | undefined;
}

/** The chunks, compressed; leaving early ends them, too. */
export async function* compressed(
  chunks: AsyncIterable<Uint8Array>,
  { compression, level }: CompressOptions,
): AsyncGenerator<Uint8Array, void> {
  if (compression === undefined) return yield* chunks;
  const encoder =
    compression === 'gzip'
      ? zlib.createGzip(level === undefined ? {} : { level })
      : zlib.createZstdCompress(
          level === undefined ? {} : { params: { [zlib.constants.ZSTD_c_compressionLevel]: level } },
        );
  const pumped = pump(chunks, encoder);
  pumped.catch((error: unknown) => encoder.destroy(error as Error)); // it comes out of the encoder
  try {
    for await (const chunk of encoder) yield chunk as Uint8Array;
  } finally {
    encoder.destroy();
    await pumped.catch(() => {}); // the source was told to stop, and has
  }
}

/** Ends the encoder only when the last chunk is through: else Node puts an empty second frame behind zstd's first. */
async function pump(chunks: AsyncIterable<Uint8Array>, encoder: Transform): Promise<void> {
  for await (const chunk of chunks) {
    await new Promise<void>((resolve, reject) => {
      encoder.write(chunk, (error) => (error ? reject(error) : resolve()));
    });
  }
  encoder.end();
}
