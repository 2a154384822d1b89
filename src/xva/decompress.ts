import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { FormatError } from '../core/index.ts';
import type { XvaCompression } from './constants.ts';

/** What decompressors hand out at once, in bytes; their default of 16 KiB costs a third of the speed. */
const CHUNK = 256 * 1024;
const ZSTD = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP = [0x1f, 0x8b];

/** How many first bytes {@link compressionOf} wants to see. */
export const MAGIC_LENGTH = 4;

/** How an archive is compressed, by its first bytes: what is not compressed begins with the name of a tar entry. */
export function compressionOf(start: Uint8Array): XvaCompression {
  if (ZSTD.every((byte, i) => start[i] === byte)) return 'zstd';
  return GZIP.every((byte, i) => start[i] === byte) ? 'gzip' : 'none';
}

export function createDecompressor(compression: Exclude<XvaCompression, 'none'>): Transform & { bytesWritten: number } {
  return compression === 'zstd'
    ? zlib.createZstdDecompress({ chunkSize: CHUNK })
    : zlib.createGunzip({ chunkSize: CHUNK });
}

/** The bytes of an archive, and how they are, or were, compressed. */
export interface ArchiveBytes {
  /** By the first bytes. */
  readonly compression: XvaCompression;
  /** To be iterated once. */
  readonly bytes: AsyncGenerator<Uint8Array, void>;
}

/** Looks how an archive is compressed; `bytes` are all of it, as they come. */
export async function peekCompression(source: AsyncIterable<Uint8Array>): Promise<ArchiveBytes> {
  const iterator = source[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  for (let length = 0; length < MAGIC_LENGTH; ) {
    const next = await iterator.next();
    if (next.done === true) break;
    // A copy of a few bytes, where that is all that came: a source may use their memory again for those that follow.
    first.push(next.value.byteLength < MAGIC_LENGTH ? new Uint8Array(next.value) : next.value);
    length += next.value.byteLength;
  }
  const start = Uint8Array.from(first.flatMap((piece) => [...piece.subarray(0, MAGIC_LENGTH)]));
  return { compression: compressionOf(start), bytes: joined(first, iterator) };
}

/**
 * Takes the compression off, whichever it is. A decompressor's silent end proves nothing: who reads must look for the
 * archive's own.
 *
 * @throws FormatError (from `bytes`) `XVA_COMPRESSION` for what cannot be decompressed.
 */
export async function plainBytes(source: AsyncIterable<Uint8Array>, file?: string): Promise<ArchiveBytes> {
  const { compression, bytes } = await peekCompression(source);
  return { compression, bytes: compression === 'none' ? bytes : unpacked(bytes, compression, file) };
}

async function* joined(
  first: readonly Uint8Array[],
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void> {
  try {
    yield* first;
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}

async function* unpacked(
  packed: AsyncGenerator<Uint8Array, void>,
  compression: Exclude<XvaCompression, 'none'>,
  file: string | undefined,
): AsyncGenerator<Uint8Array, void> {
  const decoder = createDecompressor(compression);
  const pumped = pipeline(Readable.from(copied(packed), { objectMode: false, highWaterMark: CHUNK }), decoder);
  pumped.catch(() => {}); // what went wrong comes out of the decoder, too; leaving early is no error
  try {
    for await (const chunk of decoder) yield chunk as Uint8Array;
  } catch (error) {
    throw compressionError(error, compression, file);
  } finally {
    decoder.destroy();
    await pumped.catch(() => {}); // the source was told to stop, and has
  }
}

/** Streams ask for a chunk while they have the one before, and a source may use its memory again for it. */
async function* copied(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) yield new Uint8Array(chunk);
}

/** What a decompressor says, in our words; any other error as it is. */
export function compressionError(error: unknown, compression: XvaCompression, file?: string): unknown {
  if (!isDecoderError(error)) return error;
  const { code, message } = error;
  const mismatch = {
    what: `${compression} archive`,
    offset: 0,
    expected: `whole ${compression} data`,
    actual: message,
  };
  return new FormatError('XVA_COMPRESSION', { ...mismatch, file }, { cause: error, facts: { zlib: code } });
}

export function isDecoderError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && 'code' in error && /^(?:Z_|ZSTD_)/.test(String(error.code));
}
