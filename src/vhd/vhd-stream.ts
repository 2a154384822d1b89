import { exactly, type SizedStream } from '../bytes/index.ts';
import { FormatError } from '../core/index.ts';
import type { BlockStream, Disk } from '../disk/index.ts';
import { VHD_BLOCK_SIZE } from './constants.ts';
import type { VhdFooter } from './footer.ts';
import type { VhdHeader } from './header.ts';
import {
  assembleVhdBlocks,
  emptyBlock,
  findVhdBlocks,
  readVhdBlocks,
  tellBlocks,
  type VhdBlock,
  type VhdBlocksOptions,
} from './vhd-blocks.ts';
import { planVhd, type ResolvedIdentity, resolveIdentity, type VhdIdentity, type VhdPlan } from './vhd-plan.ts';

/** A VHD whose bytes are yet to be read. */
export interface VhdStream extends SizedStream {
  /** As it will be written. */
  readonly footer: VhdFooter;
  /** As it will be written. */
  readonly header: VhdHeader;
  /** Its own, from the footer. */
  readonly uuid: string;
  /** Indexes of the blocks in it, ascending. */
  readonly blockIndexes: Uint32Array;
}

export interface VhdStreamOptions extends VhdIdentity, VhdBlocksOptions {}

/**
 * A dynamic or differencing VHD of a disk, as a stream whose length is known before its first byte. The disk's extents
 * are asked for at once; its data is read when the chunks are, once. A chunk belongs to whoever received it, unless `reuseMemory` says otherwise.
 *
 * Dynamic: 2 MiB blocks with any data, whole. Differencing: blocks with any data or zeros, and in their bitmaps the
 * sectors that are data or zeros; extents that are not whole sectors are widened. What the disk calls `absent` stays
 * with the parent.
 *
 * @throws FormatError `VHD_TOO_LARGE` above 2040 GiB; `VHD_PARENT_NEEDED` where a dynamic VHD is wanted of a disk that
 * has absent parts; RangeError for a size that is not whole sectors.
 */
export async function vhdStream(disk: Disk, options: VhdStreamOptions = {}): Promise<VhdStream> {
  const identity = resolveIdentity(disk.size, options);
  const plan = planVhd(identity, await findVhdBlocks(disk, identity, options));
  return streamOf(plan, readVhdBlocks(disk, identity, plan.blockIndexes, options), options);
}

export interface VhdStreamFromBlocksOptions extends VhdIdentity, Pick<VhdBlocksOptions, 'onBlock' | 'signal'> {
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Which 2 MiB blocks of the disk the VHD is to have: all that `blocks` will touch, and possibly more. */
  readonly blockIndexes: Iterable<number>;
}

/**
 * As {@link vhdStream}, where the data arrives as an ascending stream but it is known beforehand which 2 MiB blocks
 * there will be: a host's export becomes a VHD of our own identity on the fly. One 2 MiB block is held at a time.
 *
 * A block that was announced and does not arrive is stored as zeros in a dynamic VHD, and with nothing marked in a
 * differencing one, where the bitmaps follow what arrives.
 *
 * @throws FormatError (from `chunks`) `VHD_BLOCK_UNPLANNED` for data of a block that was not announced;
 * `VHD_STREAM_ORDER`, `VHD_STREAM_UNALIGNED`.
 */
export function vhdStreamFromBlocks(options: VhdStreamFromBlocksOptions, blocks: BlockStream): VhdStream {
  const identity = resolveIdentity(options.size, options);
  const plan = planVhd(identity, options.blockIndexes);
  return streamOf(plan, fillUp(plan, identity, assembleVhdBlocks(blocks, identity, options)), options);
}

function streamOf(
  plan: VhdPlan,
  blocks: AsyncIterable<VhdBlock>,
  { onBlock }: Pick<VhdBlocksOptions, 'onBlock'>,
): VhdStream {
  const { footer, header, blockIndexes, length } = plan;
  const told = onBlock === undefined ? blocks : tellBlocks(blocks, { size: footer.currentSize }, onBlock);
  const chunks = exactly(length, emit(plan, told), 'VHD');
  return { footer, header, uuid: footer.uuid, blockIndexes, length, chunks };
}

async function* emit(plan: VhdPlan, blocks: AsyncIterable<VhdBlock>): AsyncGenerator<Uint8Array, void> {
  yield plan.head;
  for await (const { bytes } of blocks) yield bytes;
  yield plan.footerBytes;
}

/** Puts empty blocks where announced ones do not arrive. */
async function* fillUp(
  { blockIndexes }: VhdPlan,
  identity: ResolvedIdentity,
  blocks: AsyncIterable<VhdBlock>,
): AsyncGenerator<VhdBlock, void> {
  let next = 0;
  for await (const block of blocks) {
    while (next < blockIndexes.length && blockIndexes[next]! < block.index) {
      yield emptyBlock(identity, blockIndexes[next++]!);
    }
    if (blockIndexes[next++] !== block.index) {
      throw new FormatError('VHD_BLOCK_UNPLANNED', {
        what: 'block stream',
        offset: block.index * VHD_BLOCK_SIZE,
        expected: 'only announced blocks',
        actual: `data of block ${block.index}`,
      });
    }
    yield block;
  }
  for (; next < blockIndexes.length; next++) yield emptyBlock(identity, blockIndexes[next]!);
}
