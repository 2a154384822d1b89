import type { ByteSource } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import type { OvaMetadata } from './ova-xml.ts';
import type { XvaDisk } from './xva-disks.ts';

/** A disk inside an archive, at random access. Closing it closes nothing: the image is closed as a whole. */
export interface XvaImageDisk extends XvaDisk, Disk {}

/** An uncompressed archive as a file, opened. */
export interface XvaImage extends AsyncDisposable {
  readonly metadata: OvaMetadata;
  /** In the order of their ids as text. */
  readonly disks: readonly XvaImageDisk[];
  close(): Promise<void>;
}

export async function openXva(_source: string | ByteSource, _options: CallOptions = {}): Promise<XvaImage> {
  throw new Error('not yet');
}
