import { createHash, webcrypto } from 'node:crypto';
import { zeroes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { Disk } from './disk.ts';
import { readBlocks } from './read-blocks.ts';

/** What one digest is of, in bytes: VHD's usual block. */
export const DIGEST_BLOCK_SIZE = 2 * 1024 * 1024;

const DIGEST_SIZE = 32;
/** How many blocks are hashed at a time; each holds a copy. */
const PARALLEL = 3;
/** Digests that become one update of the root's hash. */
const GATHER = 2048;

/** The SHA-256 of one block. */
export interface BlockDigest {
  /** Of the block on the disk, in bytes. */
  readonly offset: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/**
 * Collects the SHA-256 of each 2 MiB of a disk, or of a layer, while its blocks pass: the thread pool hashes, so what
 * passes is hardly slowed. Memory: 40 bytes for each block, and at most 6 MiB of blocks under way.
 */
export class BlockDigests {
  /** Of the disk, in bytes. */
  readonly size: number;
  #offsets = new Float64Array(64);
  #digests = new Uint8Array(64 * DIGEST_SIZE);
  #count = 0;
  readonly #underWay: Promise<void>[] = [];

  constructor(size: number) {
    this.size = size;
  }

  /**
   * Takes the next block, whose memory is free again when this has returned, even before it resolves.
   *
   * @throws RangeError for one that is not 2 MiB (up to the disk's end) at a multiple of it, behind the one before.
   */
  async add(offset: number, data: Uint8Array): Promise<void> {
    const isNext = offset % DIGEST_BLOCK_SIZE === 0 && (this.#count === 0 || offset > this.#offsets[this.#count - 1]!);
    if (!isNext || data.byteLength !== this.#lengthAt(offset)) {
      throw new RangeError(`${data.byteLength} bytes at ${offset} are no block of a disk of ${this.size} bytes`);
    }
    const index = this.#count++;
    if (index >= this.#offsets.length) this.#grow();
    this.#offsets[index] = offset;
    const hashing = this.#hash(index, data);
    hashing.catch(() => {}); // awaited below or at the end
    this.#underWay.push(hashing);
    if (this.#underWay.length >= PARALLEL) await this.#underWay.shift();
  }

  /** The digests, ascending, once all blocks were added. */
  async *list(): AsyncGenerator<BlockDigest, void> {
    await this.#settle();
    for (let index = 0; index < this.#count; index++) {
      yield { offset: this.#offsets[index]!, sha256: Buffer.from(this.#digestAt(index)).toString('hex') };
    }
  }

  /**
   * One digest of the whole disk: the SHA-256 over the SHA-256 of each 2 MiB, the last one maybe shorter; blocks that were not
   * added are zeros. Lower-case hexadecimal.
   */
  async root(): Promise<string> {
    await this.#settle();
    const hash = createHash('sha256');
    const zero = zeroDigest(DIGEST_BLOCK_SIZE);
    const gathered = new Uint8Array(GATHER * DIGEST_SIZE);
    let held = 0;
    let next = 0;
    for (let offset = 0; offset < this.size; offset += DIGEST_BLOCK_SIZE) {
      const length = this.#lengthAt(offset);
      const isAdded = next < this.#count && this.#offsets[next] === offset;
      const missing = length === DIGEST_BLOCK_SIZE ? zero : zeroDigest(length);
      gathered.set(isAdded ? this.#digestAt(next++) : missing, held * DIGEST_SIZE);
      if (++held < GATHER) continue;
      hash.update(gathered);
      held = 0;
    }
    return hash.update(gathered.subarray(0, held * DIGEST_SIZE)).digest('hex');
  }

  async #hash(index: number, data: Uint8Array): Promise<void> {
    // WebCrypto copies the bytes before it returns; its types do not know of shared memory.
    const digest = await webcrypto.subtle.digest('SHA-256', data as Uint8Array<ArrayBuffer>);
    this.#digests.set(new Uint8Array(digest), index * DIGEST_SIZE);
  }

  async #settle(): Promise<void> {
    await Promise.all(this.#underWay.splice(0));
  }

  #lengthAt(offset: number): number {
    return Math.min(DIGEST_BLOCK_SIZE, this.size - offset);
  }

  #digestAt(index: number): Uint8Array {
    return this.#digests.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE);
  }

  #grow(): void {
    const [offsets, digests] = [this.#offsets, this.#digests];
    this.#offsets = new Float64Array(offsets.length * 2);
    this.#offsets.set(offsets);
    this.#digests = new Uint8Array(digests.length * 2);
    this.#digests.set(digests);
  }
}

/**
 * The digest of a whole disk as {@link BlockDigests.root} makes it, which manifests record: cheap where a disk is sparse,
 * for zeros that are known are not hashed.
 */
export async function digestDisk(disk: Disk, { signal }: CallOptions = {}): Promise<string> {
  const digests = new BlockDigests(disk.size);
  const block = new Uint8Array(DIGEST_BLOCK_SIZE);
  /** The block that is being put together, of the runs that a disk's extents cut it into. */
  let at: number | undefined;
  const flush = async () => {
    if (at === undefined) return;
    await digests.add(at, block.subarray(0, Math.min(DIGEST_BLOCK_SIZE, disk.size - at)));
  };
  for await (const { offset, data } of readBlocks(disk, { signal, reuseMemory: true })) {
    const start = offset - (offset % DIGEST_BLOCK_SIZE);
    if (start !== at) {
      await flush();
      block.fill(0);
      at = start;
    }
    block.set(data, offset - start);
  }
  await flush();
  return digests.root();
}

function zeroDigest(length: number): Uint8Array {
  const hash = createHash('sha256');
  for (const piece of zeroes(length)) hash.update(piece);
  return hash.digest();
}
