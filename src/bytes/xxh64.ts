import xxhash, { type XXHash } from 'xxhash-wasm';

/** An XXH64 (seed 0) of bytes that arrive one after another. */
export interface Xxh64Hasher {
  update(bytes: Uint8Array): void;
  /** Of all bytes so far, as an unsigned 64-bit number; more may follow. */
  digest(): bigint;
}

/** XXH64 with seed 0, at the speed of WebAssembly. */
export interface Xxh64 {
  /** Of `bytes`, as an unsigned 64-bit number. */
  hash(bytes: Uint8Array): bigint;
  create(): Xxh64Hasher;
}

/** What the module's memory is fed at once, in bytes: it never shrinks again. */
const PIECE = 1024 * 1024;

let loading: Promise<Xxh64> | undefined;

/**
 * Compiles the hash function, once in a process. It is a promise and no constant, because a module that waits while it
 * loads cannot be `require`d.
 */
export function loadXxh64(): Promise<Xxh64> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Xxh64> {
  const { create64, h64Raw } = await xxhash();
  const create = () => hasher(create64());
  const hash = (bytes: Uint8Array) => {
    if (bytes.byteLength <= PIECE) return h64Raw(bytes);
    const whole = create();
    whole.update(bytes);
    return whole.digest();
  };
  return { hash, create };
}

function hasher(state: XXHash<bigint>): Xxh64Hasher {
  return {
    update(bytes) {
      for (let at = 0; at < bytes.byteLength; at += PIECE) state.update(bytes.subarray(at, at + PIECE));
    },
    digest: () => state.digest(),
  };
}

/** A hash as 16 upper-case hexadecimal digits, the form in which hosts write it. */
export function xxh64Hex(hash: bigint): string {
  return hash.toString(16).padStart(16, '0').toUpperCase();
}
