/** Where the memory of blocks comes from and goes to. */
export interface MemoryRing {
  /** `length` bytes, at most the ring's size, with anything in them. */
  take(length: number): Uint8Array<ArrayBuffer>;
  /** Gives bytes back that `take` gave; nobody may look at them any more. */
  give(bytes: Uint8Array<ArrayBuffer>): void;
}

/**
 * Memory in pieces of at most `size` bytes. With `reuse` what is given back is taken again, which spares the kernel from
 * clearing fresh pages: a copy at the speed of memory becomes several times faster. Without it every piece is new, and
 * belongs to whoever got it.
 */
export function memoryRing(size: number, reuse: boolean): MemoryRing {
  const free: ArrayBuffer[] = [];
  return {
    take(length) {
      if (!reuse) return new Uint8Array(length);
      return new Uint8Array(free.pop() ?? new ArrayBuffer(size), 0, length);
    },
    give(bytes) {
      if (reuse) free.push(bytes.buffer);
    },
  };
}
