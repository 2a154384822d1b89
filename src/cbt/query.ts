import { type CallOptions, FormatError } from '../core/index.ts';
import { ChangedBlocks } from './changed-blocks.ts';

/** What asking for changed blocks needs of a host. */
export interface ChangedBlocksHost {
  /** As `VDI.list_changed_blocks`: the bitmap in base64, and the newer disk's virtual size in bytes. */
  listChangedBlocks(
    fromVdi: string,
    toVdi: string,
    options?: CallOptions,
  ): Promise<{
    /** Base64. */
    readonly bitmap: string;
    /** In bytes. */
    readonly diskSize: number;
  }>;
}

/**
 * Asks the host which blocks of a disk changed from `fromVdi`, the older snapshot, to `toVdi`, the newer. Each may be a
 * snapshot or what is left of one after its data was destroyed; uuids or references.
 *
 * A host's refusal rejects as the port rejects: `SR_BACKEND_FAILURE_460` says that the two are not linked, so the disk
 * needs a full backup.
 *
 * @throws FormatError `CBT_BASE64`, `CBT_LENGTH`, `CBT_DISK_SIZE` where the answer is not what it should be.
 */
export async function queryChangedBlocks(
  host: ChangedBlocksHost,
  fromVdi: string,
  toVdi: string,
  options: CallOptions = {},
): Promise<ChangedBlocks> {
  options.signal?.throwIfAborted();
  const { bitmap, diskSize } = await host.listChangedBlocks(fromVdi, toVdi, options);
  const name = `VDI ${toVdi}`;
  if (!Number.isSafeInteger(diskSize) || diskSize < 0) {
    throw new FormatError('CBT_DISK_SIZE', {
      what: 'size of the newer disk',
      offset: 0,
      expected: 'a size in bytes',
      actual: diskSize,
      file: name,
    });
  }
  return ChangedBlocks.fromBase64(bitmap, { diskSize, name });
}
