import type { SizedStream } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import type { XvaChecksum } from './constants.ts';
import type { OvaMetadata } from './ova-xml.ts';

/** What an archive is made of. */
export interface XvaContents {
  readonly metadata: OvaMetadata;
  /** One for each disk of the metadata that has data, see {@link xvaDisks}, of exactly its size. */
  readonly disks: readonly { readonly id: string; readonly disk: Disk }[];
}

export interface XvaStreamOptions extends CallOptions {
  /**
   * Hosts of 8.1 and later read both kinds, those before only `'sha1'`.
   * @defaultValue `'xxhash'`
   */
  readonly checksum?: XvaChecksum | undefined;
  /**
   * Compresses the archive as a whole.
   * @defaultValue none
   */
  readonly compression?: 'gzip' | 'zstd' | undefined;
  /**
   * How hard to compress.
   * @defaultValue the compressor's: 6 of gzip, 3 of zstd
   */
  readonly level?: number | undefined;
}

/** An archive whose bytes are yet to be read. */
export interface XvaOutput {
  /** In bytes; `undefined` where it is compressed. */
  readonly length: number | undefined;
  /** Without compression, in bytes; with it an upper bound. */
  readonly plainLength: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export function xvaStream(
  contents: XvaContents,
  options?: XvaStreamOptions & { readonly compression?: undefined },
): Promise<XvaOutput & SizedStream>;
export function xvaStream(contents: XvaContents, options?: XvaStreamOptions): Promise<XvaOutput>;
export async function xvaStream(_contents: XvaContents, _options: XvaStreamOptions = {}): Promise<XvaOutput> {
  throw new Error('not yet');
}
