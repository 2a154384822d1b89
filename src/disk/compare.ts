import { isZero } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Block, Disk } from './disk.ts';
import { readBlocks } from './read-blocks.ts';

/** The outcome of {@link compareDisks}. */
export type DiskComparison =
  | {
      /** Every byte of one is that of the other. */
      readonly equal: true;
      /** Of both, in bytes. */
      readonly size: number;
    }
  | {
      /** They differ. */
      readonly equal: false;
      /** The first byte that differs; the smaller size where one disk is a prefix of the other. */
      readonly offset: number;
      /** `size`: as far as the shorter goes they are the same. */
      readonly reason: 'size' | 'content';
      /** In bytes, in the order of the arguments. */
      readonly sizes: readonly [number, number];
    };

/**
 * Compares two disks byte by byte. Runs that both call zero are not read. Disks of different sizes differ, at the end
 * of the shorter one unless an earlier byte does.
 */
export async function compareDisks(a: Disk, b: Disk, options: CallOptions = {}): Promise<DiskComparison> {
  const sizes = [a.size, b.size] as const;
  const shorter = Math.min(a.size, b.size);
  const left = readBlocks(a, { ...options, length: shorter });
  const right = readBlocks(b, { ...options, length: shorter });
  try {
    let one = await next(left);
    let other = await next(right);
    while (one !== undefined || other !== undefined) {
      const oneAt = one?.offset ?? shorter;
      const otherAt = other?.offset ?? shorter;
      // What one side does not send reads as zeros: only the part before the other side's block stands alone.
      if (one !== undefined && oneAt < otherAt) {
        const alone = Math.min(one.data.byteLength, otherAt - oneAt);
        const at = firstNonZero(one.data.subarray(0, alone));
        if (at >= 0) return { equal: false, offset: oneAt + at, reason: 'content', sizes };
        one = rest(one, alone) ?? (await next(left));
      } else if (other !== undefined && otherAt < oneAt) {
        const alone = Math.min(other.data.byteLength, oneAt - otherAt);
        const at = firstNonZero(other.data.subarray(0, alone));
        if (at >= 0) return { equal: false, offset: otherAt + at, reason: 'content', sizes };
        other = rest(other, alone) ?? (await next(right));
      } else if (one !== undefined && other !== undefined) {
        const both = Math.min(one.data.byteLength, other.data.byteLength);
        const at = firstDifference(one.data.subarray(0, both), other.data.subarray(0, both));
        if (at >= 0) return { equal: false, offset: oneAt + at, reason: 'content', sizes };
        one = rest(one, both) ?? (await next(left));
        other = rest(other, both) ?? (await next(right));
      }
    }
  } finally {
    await Promise.all([left.return(), right.return()]);
  }
  if (a.size !== b.size) return { equal: false, offset: shorter, reason: 'size', sizes };
  return { equal: true, size: a.size };
}

async function next(blocks: AsyncGenerator<Block, void>): Promise<Block | undefined> {
  const { done, value } = await blocks.next();
  return done === true ? undefined : (value as Block);
}

function rest(block: Block, taken: number): Block | undefined {
  if (taken === block.data.byteLength) return undefined;
  return { offset: block.offset + taken, data: block.data.subarray(taken) };
}

function firstNonZero(bytes: Uint8Array): number {
  return isZero(bytes) ? -1 : bytes.findIndex((byte) => byte !== 0);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b) === 0 ? -1 : a.findIndex((byte, at) => byte !== b[at]);
}
