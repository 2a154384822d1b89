import { createHash, type Hash } from 'node:crypto';
import { type Xxh64, type Xxh64Hasher, xxh64Hex } from '../bytes/index.ts';
import type { XvaChecksum } from './constants.ts';

/** Which chunks of an archive one of several checkers hashes: every `of`-th, from chunk `index` on. */
export interface ChunkShare {
  readonly index: number;
  readonly of: number;
}

const WHOLE: ChunkShare = { index: 0, of: 1 };

/**
 * Hashes chunks before it is known which checksum comes behind: both kinds at first, then the kind that came. A chunk
 * that passed cannot be hashed again, so an archive that mixes them, which no host writes, is not verified.
 */
export class ChunkHashing {
  readonly #xxh64: Xxh64;
  readonly #share: ChunkShare;
  #count = 0;
  #isOurs = false;
  #kind: XvaChecksum | undefined;
  #xxhash: Xxh64Hasher | undefined;
  #sha1: Hash | undefined;

  constructor(xxh64: Xxh64, share = WHOLE) {
    this.#xxh64 = xxh64;
    this.#share = share;
  }

  /** The next chunk comes; `false`: another checker hashes it. */
  begin(): boolean {
    this.#isOurs = this.#count++ % this.#share.of === this.#share.index;
    this.#xxhash = this.#isOurs && this.#kind !== 'sha1' ? this.#xxh64.create() : undefined;
    this.#sha1 = this.#isOurs && this.#kind !== 'xxhash' ? createHash('sha1') : undefined;
    return this.#isOurs;
  }

  update(bytes: Uint8Array): void {
    this.#xxhash?.update(bytes);
    this.#sha1?.update(bytes);
  }

  /** What is wrong with a checksum, if anything. Compared as text, as hosts do: the wrong case is another checksum. */
  verdict(kind: XvaChecksum, text: string): { readonly code: `XVA_${string}`; readonly expected: string } | undefined {
    this.#kind ??= kind;
    if (!this.#isOurs) return undefined;
    if (kind !== this.#kind) return { code: 'XVA_CHECKSUM_KIND', expected: `a checksum of the kind ${this.#kind}` };
    const actual = kind === 'xxhash' ? xxh64Hex(this.#xxhash!.digest()) : this.#sha1!.digest('hex');
    return actual === text ? undefined : { code: 'XVA_CHECKSUM', expected: actual };
  }
}
