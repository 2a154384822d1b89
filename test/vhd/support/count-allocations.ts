/** How much memory was asked for in typed arrays, in bytes. */
export interface Allocations {
  readonly largest: number;
  readonly total: number;
  reset(): void;
  /** Puts the real constructors back. */
  stop(): void;
}

const COUNTED = ['Uint8Array', 'Uint32Array', 'ArrayBuffer'] as const;

/**
 * Counts what `new Uint8Array(length)` and the like ask for, from now on and for all code of this process. Views of
 * memory that is there already, and what built-in methods make, do not count.
 */
export function countAllocations(): Allocations {
  let largest = 0;
  let total = 0;
  const real = COUNTED.map((name) => [name, globalThis[name]] as const);
  for (const [name, make] of real) {
    const counting: object = new Proxy(make, {
      construct(target, args: [unknown, ...unknown[]], newTarget): object {
        const [length] = args;
        if (typeof length === 'number') {
          const bytes = length * ('BYTES_PER_ELEMENT' in target ? target.BYTES_PER_ELEMENT : 1);
          largest = Math.max(largest, bytes);
          total += bytes;
        }
        return Reflect.construct(target, args, newTarget === counting ? target : newTarget);
      },
    });
    Object.assign(globalThis, { [name]: counting });
  }
  return {
    get largest() {
      return largest;
    },
    get total() {
      return total;
    },
    reset() {
      largest = 0;
      total = 0;
    },
    stop() {
      for (const [name, make] of real) Object.assign(globalThis, { [name]: make });
    },
  };
}
