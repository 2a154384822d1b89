import { createHash, webcrypto } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { writeFully } from './vhd-write.ts';

const STAMP_SIZE = 32;
const DIGEST_SIZE = 32;
const RECORD_SIZE = 4 + DIGEST_SIZE;
/** Read at a time. */
const RECORDS = 1024;
/** Stands for "the disk is dealt with to its end", where others have the index of a block. */
const END = 0xffffffff;
/** In place of a digest: nothing had to be stored up to and with this block. */
const NOTHING = new Uint8Array(DIGEST_SIZE);

/** What one record says. */
export interface JournalRecord {
  /** Of a block of the disk. */
  readonly index: number;
  /** The SHA-256 of the block as it lies in the file; `undefined` where none is stored. */
  readonly digest: Uint8Array | undefined;
}

/**
 * Which blocks a draft has, in their order: 32 bytes that say what the draft is of, then 36 bytes for each block, its index
 * and its SHA-256. A record proves nothing by itself: after a power cut its block may not be there.
 */
export class DraftJournal {
  readonly #file: FileHandle;
  /** The end of what is known to be right. */
  #end = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Is it the journal of a draft of this? */
  async isOf(what: string): Promise<boolean> {
    const found = new Uint8Array(STAMP_SIZE);
    const { bytesRead } = await this.#file.read(found, 0, STAMP_SIZE, 0);
    this.#end = STAMP_SIZE;
    return bytesRead === STAMP_SIZE && Buffer.compare(found, stampOf(what)) === 0;
  }

  /** Begins anew. */
  async begin(what: string): Promise<void> {
    await this.#file.truncate();
    await writeFully(this.#file, stampOf(what), 0);
    this.#end = STAMP_SIZE;
  }

  /**
   * The records of a disk of so many blocks, up to the first that cannot be. Whoever asks for the next one has found this one
   * right; what comes behind the last that was is forgotten by {@link cut}.
   */
  async *records(blockCount: number): AsyncGenerator<JournalRecord, void> {
    let last = -1;
    const bytes = new Uint8Array(RECORDS * RECORD_SIZE);
    const view = new DataView(bytes.buffer);
    for (;;) {
      const { bytesRead } = await this.#file.read(bytes, 0, bytes.byteLength, this.#end);
      for (let at = 0; at + RECORD_SIZE <= bytesRead; at += RECORD_SIZE) {
        const index = view.getUint32(at);
        const digest = bytes.subarray(at + 4, at + RECORD_SIZE);
        const isStored = Buffer.compare(digest, NOTHING) !== 0;
        const isEnd = index === END && !isStored;
        if (!isEnd && (index <= last || index >= blockCount)) return;
        yield { index: isEnd ? blockCount - 1 : index, digest: isStored ? digest : undefined };
        this.#end += RECORD_SIZE;
        if (isEnd) return;
        last = index;
      }
      if (bytesRead < bytes.byteLength) return;
    }
  }

  /** Forgets what was not found right. */
  async cut(): Promise<void> {
    await this.#file.truncate(this.#end);
  }

  /** A block is in the file; without `digest`, none had to be stored up to and with it. */
  async add(index: number, digest: Uint8Array = NOTHING): Promise<void> {
    const record = new Uint8Array(RECORD_SIZE);
    new DataView(record.buffer).setUint32(0, index);
    record.set(digest, 4);
    await writeFully(this.#file, record, this.#end);
    this.#end += RECORD_SIZE;
  }

  /** The disk is dealt with to its end. */
  async end(): Promise<void> {
    await this.add(END);
  }
}

/** The SHA-256 of a block; the thread pool works it out. */
export async function digestOf(block: Uint8Array): Promise<Uint8Array> {
  // WebCrypto copies the bytes before it returns; its types do not know of shared memory.
  return new Uint8Array(await webcrypto.subtle.digest('SHA-256', block as Uint8Array<ArrayBuffer>));
}

function stampOf(what: string): Uint8Array {
  return createHash('sha256').update(what).digest();
}
