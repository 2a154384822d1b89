import type { SizedStream } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { XvaCompression } from './constants.ts';
import type { OvaMetadata } from './ova-xml.ts';

export interface RewriteXvaOptions extends CallOptions {
  /**
   * The length of the archive without compression, in bytes, as a check's report tells it: the length of what is
   * written is then known before its first byte.
   * @defaultValue unknown
   */
  readonly plainLength?: number | undefined;
  /**
   * Compresses what is written.
   * @defaultValue none
   */
  readonly compression?: 'gzip' | 'zstd' | undefined;
  /**
   * How hard to compress.
   * @defaultValue the compressor's
   */
  readonly level?: number | undefined;
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
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Gives up what was not read. */
  close(): Promise<void>;
}

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
  _bytes: AsyncIterable<Uint8Array>,
  _edit: (metadata: OvaMetadata) => OvaMetadata,
  _options: RewriteXvaOptions = {},
): Promise<RewrittenXva> {
  throw new Error('not yet');
}
