import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isZero } from '../bytes/index.ts';
import type { BlockStream, Disk } from '../disk/index.ts';
import { BITMAP_SIZE, FOOTER_SIZE, VHD_BLOCK_SIZE } from './constants.ts';
import type { VhdFooter } from './footer.ts';
import type { VhdHeader } from './header.ts';
import { syncFolder } from './sync-folder.ts';
import {
  assembleVhdBlocks,
  dataOf,
  findVhdBlocks,
  readVhdBlocks,
  type VhdBlock,
  type VhdBlocksOptions,
} from './vhd-blocks.ts';
import { headLengthOf, planVhd, type ResolvedIdentity, resolveIdentity, type VhdIdentity } from './vhd-plan.ts';

/** Blocks of a disk whose extents nobody knows in advance. */
export interface SizedBlocks {
  /** Of the disk, in bytes. */
  readonly size: number;
  /** In a dynamic VHD what does not arrive is zero, in a differencing one it stays with the parent. */
  readonly blocks: BlockStream;
}

export interface WriteVhdOptions extends VhdIdentity, VhdBlocksOptions {
  /** Called after each block with how far the disk was dealt with, as an offset into it. */
  readonly onOffset?: ((offset: number) => void) | undefined;
}

/** What {@link writeVhd} wrote. */
export interface WrittenVhd {
  /** Of the file, in bytes. */
  readonly length: number;
  /** Its own, from the footer. */
  readonly uuid: string;
  /** As it was written. */
  readonly footer: VhdFooter;
  /** As it was written. */
  readonly header: VhdHeader;
  /** Indexes of the blocks in it, ascending. */
  readonly blockIndexes: Uint32Array;
}

/**
 * Writes a dynamic or differencing VHD of a disk, or of a stream of its blocks, to a new file. In a dynamic one 2 MiB
 * blocks that are all zeros are left out. Data, block table and footers reach the disk in this order: a file that a
 * crash left behind has no footer and is refused by everybody. The file is durable when this resolves, name included,
 * and removed when it rejects.
 *
 * @throws what `vhdStream` throws, before the file is made; `EEXIST` where there is a file at `path`.
 */
export async function writeVhd(
  from: Disk | SizedBlocks,
  path: string,
  options: WriteVhdOptions = {},
): Promise<WrittenVhd> {
  const identity = resolveIdentity(from.size, options);
  const blocks =
    'extents' in from
      ? readVhdBlocks(from, identity, await findVhdBlocks(from, identity, options), {
          ...options,
          reuseMemory: true, // a block is written before the next is asked for
        })
      : assembleVhdBlocks(from.blocks, identity, options);
  const file = await open(path, 'wx');
  try {
    const headLength = headLengthOf(identity);
    const indexes = await writeBlocks(file, headLength, blocks, identity, options);
    return await sealVhd(file, path, identity, indexes);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/**
 * Makes a file whose blocks are written a VHD, durably: what was written before is on the disk before the block table names
 * it, and that before there is a footer.
 */
export async function sealVhd(
  file: FileHandle,
  path: string,
  identity: ResolvedIdentity,
  blockIndexes: readonly number[],
): Promise<WrittenVhd> {
  await file.datasync();
  const plan = planVhd(identity, blockIndexes);
  await writeFully(file, plan.head.subarray(FOOTER_SIZE), FOOTER_SIZE);
  await file.datasync();
  await writeFully(file, plan.footerBytes, 0);
  await writeFully(file, plan.footerBytes, plan.length - FOOTER_SIZE);
  await file.sync();
  await syncFolder(dirname(path));
  const { footer, header, length } = plan;
  return { length, uuid: footer.uuid, footer, header, blockIndexes: plan.blockIndexes };
}

/** Appends the blocks that count behind `at`; resolves with their indexes. */
async function writeBlocks(
  file: FileHandle,
  at: number,
  blocks: AsyncIterable<VhdBlock>,
  { kind, size }: ResolvedIdentity,
  { onBlock, onOffset, signal }: WriteVhdOptions,
): Promise<number[]> {
  const indexes: number[] = [];
  let end = at;
  for await (const block of blocks) {
    const { index, bytes } = block;
    signal?.throwIfAborted();
    if (kind === 'differencing' || !isZero(bytes.subarray(BITMAP_SIZE))) {
      await onBlock?.(index * VHD_BLOCK_SIZE, dataOf(block, size));
      await writeFully(file, bytes, end);
      end += bytes.byteLength;
      indexes.push(index);
    }
    onOffset?.((index + 1) * (bytes.byteLength - BITMAP_SIZE));
  }
  return indexes;
}

/** Writes all of `data` at `offset`. */
export async function writeFully(file: FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await file.write(data, done, data.byteLength - done, offset + done);
    done += bytesWritten;
  }
}
