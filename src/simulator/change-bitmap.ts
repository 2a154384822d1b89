import { setBits } from '../bytes/index.ts';

/** What one bit of a change log stands for, in bytes. */
export const CHANGE_BLOCK_SIZE = 64 * 1024;

const PAGE_BYTES = 4096;
const PAGE_BITS = PAGE_BYTES * 8; // one page covers 2 GiB of disk

/** Which 64 KiB blocks were written: memory only for the parts of the disk that were touched. */
export interface ChangeBitmap {
  /** Marks every block that `length` bytes at `offset` touch. */
  mark(offset: number, length: number): void;
  /** The marks for a disk of `size` bytes: `ceil(ceil(size / 65536) / 8)` bytes, most significant bit first. */
  toBytes(size: number): Uint8Array;
}

export function changeBitmap(): ChangeBitmap {
  const pages = new Map<number, Uint8Array>();
  return {
    mark(offset, length) {
      const end = Math.ceil((offset + length) / CHANGE_BLOCK_SIZE);
      for (let bit = length === 0 ? end : Math.floor(offset / CHANGE_BLOCK_SIZE); bit < end; ) {
        const index = Math.floor(bit / PAGE_BITS);
        const next = Math.min(end, (index + 1) * PAGE_BITS);
        let page = pages.get(index);
        if (page === undefined) {
          page = new Uint8Array(PAGE_BYTES);
          pages.set(index, page);
        }
        setBits(page, bit - index * PAGE_BITS, next - bit);
        bit = next;
      }
    },
    toBytes(size) {
      const bytes = new Uint8Array(changeBytes(size));
      for (const [index, page] of pages) {
        const at = index * PAGE_BYTES;
        bytes.set(page.subarray(0, Math.max(0, bytes.byteLength - at)), Math.min(at, bytes.byteLength));
      }
      return bytes;
    },
  };
}

/** How many bytes the change log of a disk of `size` bytes has. */
export function changeBytes(size: number): number {
  return Math.ceil(Math.ceil(size / CHANGE_BLOCK_SIZE) / 8);
}
