import type { ByteSource } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { XvaChecksum, XvaCompression } from './constants.ts';
import type { XvaFinding } from './findings.ts';
import type { OvaMetadata } from './ova-xml.ts';
import type { XvaDisk } from './xva-disks.ts';

/** A disk, and how much of it an archive holds. */
export interface XvaDiskReport extends XvaDisk {
  /** Bytes in chunks; the rest is zero. */
  readonly dataBytes: number;
  readonly chunks: number;
  /** Does its data reach its end? */
  readonly complete: boolean;
}

/** What a check found. Plain and serialisable, without secrets. */
export interface XvaReport {
  /** Is nothing wrong? */
  readonly ok: boolean;
  readonly compression: XvaCompression;
  /** Of the archive as it came, in bytes. */
  readonly length: number;
  /** Of the archive without its compression, in bytes. */
  readonly plainLength: number;
  /** Entries of the tar: `ova.xml`, chunks and checksums. */
  readonly entries: number;
  readonly chunks: number;
  /** The kinds of checksum in it. */
  readonly checksums: readonly XvaChecksum[];
  readonly disks: readonly XvaDiskReport[];
  /** What is wrong, the first 20; in the order in which it was met. */
  readonly findings: readonly XvaFinding[];
  /** Where the first of them is. */
  readonly firstBad?: { readonly entry: string; readonly offset: number } | undefined;
}

export async function checkXva(_source: string | ByteSource, _options: CallOptions = {}): Promise<XvaReport> {
  throw new Error('not yet');
}

/** Bytes that are checked while they pass. */
export interface CheckingXva {
  /** The bytes that were given, unchanged, to be iterated once. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Resolves when `bytes` has ended or was left; rejects as `bytes` does where the source fails. */
  readonly report: Promise<XvaReport>;
  /** Resolves as soon as `ova.xml` has passed; with nothing where it never does. */
  readonly metadata: Promise<OvaMetadata | undefined>;
}

export function checkingXva(_bytes: AsyncIterable<Uint8Array>, _options: CallOptions = {}): CheckingXva {
  throw new Error('not yet');
}
