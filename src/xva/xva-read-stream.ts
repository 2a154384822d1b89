import type { CallOptions } from '../core/index.ts';
import type { BlockStream } from '../disk/index.ts';
import type { XvaDisk, XvaHead } from './xva-disks.ts';

export interface ReadXvaStreamOptions extends CallOptions {
  /**
   * What errors call the stream.
   * @defaultValue nothing
   */
  readonly file?: string | undefined;
}

/** One disk and its data. */
export interface XvaDiskContents {
  readonly disk: XvaDisk;
  /**
   * A block for each chunk with data, its checksum verified before it is given; what is left out is zero. What is not
   * read here is read over, and verified, when the next disk is asked for.
   */
  readonly blocks: BlockStream;
}

/** An archive that is being read in one forward pass: what its head says, and its disks to come. */
export interface XvaStream extends XvaHead, AsyncDisposable {
  /** Each disk in turn, to be iterated once. The archive was whole only if this ends without an error. */
  readonly contents: AsyncIterable<XvaDiskContents>;
  /** Gives up what was not read. */
  close(): Promise<void>;
}

export async function readXvaStream(
  _bytes: AsyncIterable<Uint8Array>,
  _options: ReadXvaStreamOptions = {},
): Promise<XvaStream> {
  throw new Error('not yet');
}
