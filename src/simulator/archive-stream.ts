import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { type ByteReader, byteReader } from '../bytes/index.ts';
import { type CallOptions, FormatError } from '../core/index.ts';
import { decodeOva, type OvaArchive } from './ova-xml.ts';
import { decodeTarHeader, readTarHeader, TAR_BLOCK, tarPadding } from './tar-v7.ts';
import { XapiFailure } from './world.ts';

const OVA_XML = 'ova.xml';
/** No host writes as much about one pool; what claims more is not read. */
const MAX_OVA_SIZE = 64 * 1024 * 1024;
const ZSTD_MAGIC = '28b52ffd';

/**
 * Opens an archive as a host does: what begins with a tar header for `ova.xml` is plain, what begins with zstd's magic
 * is zstd, all else is taken for gzip.
 */
export async function openArchive(body: AsyncIterable<Uint8Array>, options: CallOptions): Promise<ByteReader> {
  const outer = byteReader(body, 'archive', options);
  const start = await outer.read(TAR_BLOCK, 'start of the archive');
  const whole = joined(start, outer);
  if (isPlain(start)) return byteReader(whole, 'archive', options);
  const zstd = Buffer.from(start.subarray(0, 4)).toString('hex') === ZSTD_MAGIC;
  return byteReader(unpacked(whole, zstd ? zlib.createZstdDecompress() : zlib.createGunzip()), 'archive', options);
}

async function* unpacked(packed: AsyncIterable<Uint8Array>, decoder: Transform): AsyncGenerator<Uint8Array, void> {
  const pumped = pipeline(Readable.from(packed), decoder);
  pumped.catch(() => {}); // what went wrong comes out of the decoder, too; leaving early is no error
  for await (const chunk of decoder) yield chunk as Uint8Array;
}

/** Reads the first file, which must be `ova.xml`. */
export async function readOva(archive: ByteReader): Promise<OvaArchive> {
  const entry = await readTarHeader(archive);
  if (entry?.name !== OVA_XML) throw new XapiFailure('IMPORT_ERROR_UNEXPECTED_FILE', [OVA_XML, entry?.name ?? '']);
  if (entry.size > MAX_OVA_SIZE) throw new XapiFailure('IMPORT_ERROR', [`${OVA_XML} of ${entry.size} bytes`]);
  const xml = await archive.read(entry.size, OVA_XML);
  await archive.skip(tarPadding(entry.size));
  return decodeOva(new TextDecoder('utf-8', { fatal: true }).decode(xml));
}

/** The host's error for what an archive's bytes did: premature ends and unreadable texts have codes of their own. */
export function archiveFailure(error: unknown): unknown {
  if (error instanceof FormatError && error.code === 'STREAM_ENDED') {
    return new XapiFailure('IMPORT_ERROR_PREMATURE_EOF', [], { cause: error });
  }
  if (!(error instanceof SyntaxError) && !(error instanceof FormatError) && !isDecoderError(error)) return error;
  return new XapiFailure('IMPORT_ERROR', [error.message], { cause: error });
}

/** Did zlib or the text decoder refuse the bytes? */
function isDecoderError(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && /^(?:Z_|ZSTD_|ERR_ENCODING_)/.test(String(error.code));
}

function isPlain(start: Uint8Array): boolean {
  try {
    return decodeTarHeader(start).name !== '';
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

async function* joined(start: Uint8Array, rest: ByteReader): AsyncGenerator<Uint8Array, void> {
  yield start;
  yield* rest.rest();
}
