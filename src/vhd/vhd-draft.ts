import { constants } from 'node:fs';
import { type FileHandle, open, rm, stat } from 'node:fs/promises';
import { isZero } from '../bytes/index.ts';
import { BackupError } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { BITMAP_SIZE, STRIDE, VHD_BLOCK_SIZE } from './constants.ts';
import { DraftJournal, digestOf } from './draft-journal.ts';
import {
  assembleVhdBlocks,
  dataOf,
  findVhdBlocks,
  readVhdBlocks,
  type VhdBlock,
  type VhdBlocksOptions,
} from './vhd-blocks.ts';
import { blockCountOf, headLengthOf, type ResolvedIdentity, resolveIdentity, type VhdIdentity } from './vhd-plan.ts';
import { type SizedBlocks, sealVhd, type WrittenVhd, writeFully } from './vhd-write.ts';

/** So many blocks without data are dealt with before the journal says so. */
const QUIET_BLOCKS = 512;

export interface VhdDraftOptions extends VhdIdentity, Pick<VhdBlocksOptions, 'onBlock' | 'signal'> {
  /** Of the disk, in bytes. */
  readonly size: number;
  /** What the data comes from, in any words that no other source has: a draft of something else is begun anew. */
  readonly source: string;
  /** Its uuid, which has to be known before: the draft that a later process goes on with is of the same. */
  readonly uuid: string;
  /** Its time, likewise. */
  readonly timestamp: Date;
}

/** How {@link VhdDraft.write} works. */
export interface WriteDraftOptions extends Pick<VhdBlocksOptions, 'readAhead' | 'signal'> {
  /** A seam between the source's blocks and the file: what it is given passes through it, for whoever measures. */
  readonly through?: (<T>(blocks: AsyncIterable<T>) => AsyncIterable<T>) | undefined;
}

/** A VHD in the making that a later process can go on with. */
export interface VhdDraft extends AsyncDisposable {
  /** How far the disk is dealt with, in bytes: what lies before is in the file, or need not be. */
  readonly offset: number;
  /**
   * Adds a disk, or a stream of its blocks, from `offset` on; what a stream brings of what lies before is left out. May be
   * repeated after a failure, from the new `offset`. When it resolves the disk is dealt with.
   */
  write(from: Disk | SizedBlocks, options?: WriteDraftOptions): Promise<void>;
  /** Makes the file a whole VHD, durably. */
  finish(): Promise<WrittenVhd>;
  /** Closes both files, and leaves them where they are. */
  close(): Promise<void>;
}

/**
 * Opens a draft at `path`, with a journal of what it holds at `journalPath`; begins it where there is none, or where it is of
 * something else. What the journal names is read and compared first, and told to `onBlock` like what is written later; from
 * the first block on that is not as it was written, the draft is forgotten. Until `finish` the file has no footer and no
 * program takes it for a VHD. Memory: about 16 MiB.
 *
 * @throws what `vhdStream` throws, for an identity that cannot be; BackupError `DRAFT_TAKEN`, also later, where another writer has
 * published the draft or begun it anew.
 */
export async function openVhdDraft(path: string, journalPath: string, options: VhdDraftOptions): Promise<VhdDraft> {
  const { size, source, onBlock, signal } = options;
  const identity = resolveIdentity(size, options);
  const what = JSON.stringify({ source, ...identity });
  await removeUnlessOf(what, path, journalPath);
  const file = await openForWriting(path);
  try {
    const journalFile = await openForWriting(journalPath);
    try {
      const draft = new Draft(file, path, journalFile, identity, onBlock);
      await draft.recover(what, signal);
      return draft;
    } catch (error) {
      await journalFile.close();
      throw error;
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Takes the names of a draft of something else away, instead of emptying its files: somebody who has slept may still write to
 * them. The same where the file has another name by now: it was published, and belongs to a point.
 */
async function removeUnlessOf(what: string, path: string, journalPath: string): Promise<void> {
  const found = await stat(path).catch(ignoreMissing);
  const isOf = found !== undefined && found.nlink <= 1 && (await isJournalOf(what, journalPath));
  if (isOf) return;
  await rm(path, { force: true });
  await rm(journalPath, { force: true });
}

async function isJournalOf(what: string, path: string): Promise<boolean> {
  const file = await open(path, 'r').catch(ignoreMissing);
  if (file === undefined) return false;
  try {
    return await new DraftJournal(file).isOf(what);
  } finally {
    await file.close();
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

function openForWriting(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
}

class Draft implements VhdDraft {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #journalFile: FileHandle;
  readonly #journal: DraftJournal;
  readonly #identity: ResolvedIdentity;
  readonly #onBlock: VhdBlocksOptions['onBlock'];
  readonly #headLength: number;
  /** Blocks in the file. */
  readonly #indexes: number[] = [];
  /** The first block that is not dealt with. */
  #next = 0;

  constructor(
    file: FileHandle,
    path: string,
    journalFile: FileHandle,
    identity: ResolvedIdentity,
    onBlock: VhdBlocksOptions['onBlock'],
  ) {
    this.#file = file;
    this.#path = path;
    this.#journalFile = journalFile;
    this.#journal = new DraftJournal(journalFile);
    this.#identity = identity;
    this.#onBlock = onBlock;
    this.#headLength = headLengthOf(identity);
  }

  get offset(): number {
    return Math.min(this.#next * VHD_BLOCK_SIZE, this.#identity.size);
  }

  async recover(what: string, signal: AbortSignal | undefined): Promise<void> {
    const { size } = this.#identity;
    if (!(await this.#journal.isOf(what))) {
      await this.#assertOurs();
      await this.#journal.begin(what);
      return;
    }
    const block = new Uint8Array(STRIDE);
    for await (const { index, digest } of this.#journal.records(blockCountOf(size))) {
      signal?.throwIfAborted();
      if (digest !== undefined) {
        const { bytesRead } = await this.#file.read(block, 0, STRIDE, this.#end);
        if (bytesRead < STRIDE || Buffer.compare(await digestOf(block), digest) !== 0) break;
        await this.#onBlock?.(index * VHD_BLOCK_SIZE, dataOf({ index, bytes: block }, size));
        this.#indexes.push(index);
      }
      this.#next = index + 1;
    }
    await this.#assertOurs();
    await this.#journal.cut();
    await this.#file.truncate(this.#end);
  }

  /**
   * Throws where somebody else has taken the draft, and published it or begun it anew: who slept for minutes must not write to
   * what is a point's by now.
   */
  async #assertOurs(): Promise<void> {
    const [here, named] = [await this.#file.stat(), await stat(this.#path).catch(ignoreMissing)];
    if (named !== undefined && named.ino === here.ino && here.nlink <= 1) return; // some file systems do not count names
    throw new BackupError(
      'DRAFT_TAKEN',
      `${this.#path} is not the draft that was opened: another writer has taken it`,
      {
        facts: { path: this.#path },
      },
    );
  }

  async write(
    from: Disk | SizedBlocks,
    { through = (blocks) => blocks, ...options }: WriteDraftOptions = {},
  ): Promise<void> {
    for await (const block of through(this.#missing(from, options))) {
      options.signal?.throwIfAborted();
      if (block.index < this.#next) continue;
      await this.#put(block);
    }
    await this.#journal.end();
    this.#next = blockCountOf(this.#identity.size);
  }

  async finish(): Promise<WrittenVhd> {
    if (this.offset < this.#identity.size) throw new RangeError(`the draft ends at ${this.offset}`);
    await this.#assertOurs();
    return sealVhd(this.#file, this.#path, this.#identity, this.#indexes);
  }

  async close(): Promise<void> {
    try {
      await this.#file.close();
    } finally {
      await this.#journalFile.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Where the next block goes. */
  get #end(): number {
    return this.#headLength + this.#indexes.length * STRIDE;
  }

  async *#missing(
    from: Disk | SizedBlocks,
    options: Pick<VhdBlocksOptions, 'readAhead' | 'signal'>,
  ): AsyncGenerator<VhdBlock, void> {
    const identity = this.#identity;
    if (from.size !== identity.size) throw new RangeError(`a disk of ${from.size} bytes for one of ${identity.size}`);
    if (!('extents' in from)) {
      yield* assembleVhdBlocks(from.blocks, identity, options);
      return;
    }
    const indexes = await findVhdBlocks(from, identity, options);
    const missing = indexes.filter((index) => index >= this.#next);
    yield* readVhdBlocks(from, identity, missing, { ...options, reuseMemory: true }); // written before the next is asked for
  }

  async #put(block: VhdBlock): Promise<void> {
    const { index, bytes } = block;
    const { kind, size } = this.#identity;
    if (kind === 'dynamic' && isZero(bytes.subarray(BITMAP_SIZE))) {
      if (index - this.#next < QUIET_BLOCKS) return;
      await this.#journal.add(index);
    } else {
      await this.#assertOurs();
      const told = this.#onBlock?.(index * VHD_BLOCK_SIZE, dataOf(block, size));
      const [digest] = await Promise.all([digestOf(bytes), writeFully(this.#file, bytes, this.#end), told]);
      await this.#journal.add(index, digest);
      this.#indexes.push(index);
    }
    this.#next = index + 1;
  }
}
