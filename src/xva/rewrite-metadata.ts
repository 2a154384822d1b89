import { type ByteReader, byteReader, exactly, type SizedStream } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { type CompressOptions, compressed } from './compress.ts';
import type { XvaCompression } from './constants.ts';
import { plainBytes } from './decompress.ts';
import { errorOf } from './findings.ts';
import { Intake } from './intake.ts';
import { metadataEntry } from './metadata-archive.ts';
import type { OvaMetadata } from './ova-xml.ts';
import { TAR_BLOCK } from './tar-entry.ts';
import { EntryReader, readMetadata, XvaFault } from './xva-walk.ts';
import { createWalker } from './xva-walker.ts';

export interface RewriteXvaOptions extends CallOptions, CompressOptions {
  /**
   * The length of the archive without compression, in bytes, as a check's report tells it: the length of what is
   * written is then known before its first byte.
   * @defaultValue unknown
   */
  readonly plainLength?: number | undefined;
  /**
   * What errors call the archive that is read.
   * @defaultValue nothing
   */
  readonly file?: string | undefined;
}

/** An archive with other metadata, its bytes yet to be read. */
export interface RewrittenXva extends AsyncDisposable {
  /** As it is written. */
  readonly metadata: OvaMetadata;
  /** How the archive that is read is compressed. */
  readonly compression: XvaCompression;
  /** In bytes; `undefined` where it is compressed, or `plainLength` was not given. */
  readonly length: number | undefined;
  /** The archive's bytes, to be iterated once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Gives up what was not read. */
  close(): Promise<void>;
}

/**
 * Edits the metadata of an archive, plain or compressed, while all that follows flows on as it is. Hosts demand no
 * checksum of `ova.xml`. What comes out is plain unless `compression` says otherwise.
 *
 * @throws FormatError `XVA_…` (from here and from `chunks`): the archive's structure is checked as it passes.
 */
export function rewriteXvaMetadata(
  bytes: AsyncIterable<Uint8Array>,
  edit: (metadata: OvaMetadata) => OvaMetadata,
  options: RewriteXvaOptions & { readonly plainLength: number; readonly compression?: undefined },
): Promise<RewrittenXva & SizedStream>;
export function rewriteXvaMetadata(
  bytes: AsyncIterable<Uint8Array>,
  edit: (metadata: OvaMetadata) => OvaMetadata,
  options?: RewriteXvaOptions,
): Promise<RewrittenXva>;
export async function rewriteXvaMetadata(
  bytes: AsyncIterable<Uint8Array>,
  edit: (metadata: OvaMetadata) => OvaMetadata,
  options: RewriteXvaOptions = {},
): Promise<RewrittenXva> {
  const { plainLength, compression, file, signal } = options;
  const source = await plainBytes(bytes, file);
  const reader = byteReader(watched(source.bytes, file), 'archive', { signal });
  try {
    const before = await readMetadataEntry(reader, file);
    const metadata = edit(before.metadata);
    const head = metadataEntry(metadata);
    const length = plainLength === undefined ? undefined : plainLength - before.length + head.byteLength;
    const plain = following(head, reader);
    const sized = length === undefined ? plain : exactly(length, plain, file ?? 'rewritten archive');
    return {
      metadata,
      compression: source.compression,
      length: compression === undefined ? length : undefined,
      chunks: compressed(sized, options),
      close: () => reader.close(),
      [Symbol.asyncDispose]: () => reader.close(),
    };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** Passes an archive on, and holds its structure to that of a whole one; checksums are not looked at. */
async function* watched(bytes: AsyncIterable<Uint8Array>, file: string | undefined): AsyncGenerator<Uint8Array, void> {
  const walker = await createWalker('skip', () => {});
  const look = (work: () => void) => {
    try {
      work();
    } catch (error) {
      throw error instanceof XvaFault ? errorOf(error.finding, file, error) : error;
    }
  };
  for await (const piece of bytes) {
    look(() => walker.give(piece));
    yield piece;
  }
  look(() => walker.end());
}

/** The first entry, which the walk has found to be `ova.xml` by now, and how long it was with header and padding. */
async function readMetadataEntry(
  reader: ByteReader,
  file: string | undefined,
): Promise<{ metadata: OvaMetadata; length: number }> {
  const intake = new Intake();
  const reading = readMetadata(new EntryReader(intake));
  try {
    for (let step = reading.next(); ; step = reading.next()) {
      if (step.done === true) return { metadata: step.value, length: intake.offset };
      if (await reader.ended()) intake.end();
      else intake.give(await reader.read(TAR_BLOCK));
    }
  } catch (error) {
    throw error instanceof XvaFault ? errorOf(error.finding, file, error) : error;
  }
}

async function* following(head: Uint8Array, reader: ByteReader): AsyncGenerator<Uint8Array, void> {
  try {
    yield head;
    yield* reader.rest();
  } finally {
    await reader.close();
  }
}
