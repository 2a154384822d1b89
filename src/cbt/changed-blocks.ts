import { assertRange, type BitRun, countSetBits, hasBit, runsOfSetBits } from '../bytes/index.ts';
import { FormatError } from '../core/index.ts';

/** The unit in which hosts track changes, in bytes. */
export const CBT_BLOCK_SIZE = 64 * 1024;

/** A run of changed bytes. */
export interface ChangedExtent {
  /** In bytes from the start of the disk. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

/** What {@link ChangedBlocks.fromBase64} must know beside the text. */
export interface ChangedBlocksOptions {
  /** Virtual size of the newer disk, in bytes: it decides how long the bitmap is and where its last block ends. */
  readonly diskSize: number;
  /**
   * What the bitmap belongs to, for error messages.
   * @defaultValue none
   */
  readonly name?: string | undefined;
}

/** Which runs of changed blocks are wanted, and how. */
export interface ChangedExtentsOptions {
  /**
   * Runs with at most this many unchanged bytes between them are joined: fewer, longer reads.
   * @defaultValue `0`
   */
  readonly mergeGap?: number | undefined;
  /**
   * Where the range asked for starts, in bytes; extents are cut to it.
   * @defaultValue `0`
   */
  readonly offset?: number | undefined;
  /**
   * The length of the range asked for, in bytes.
   * @defaultValue up to the disk's end
   */
  readonly length?: number | undefined;
}

/**
 * Which blocks of a disk changed between two of its snapshots, as the host tells: one bit for each block of 64 KiB, the
 * most significant bit of each byte first (xapi-project/sm, `drivers/VDI.py`, `list_changed_blocks`). A set bit means
 * "written to", also where the same bytes were written; it says nothing about zeros. The value never changes; it holds
 * the bitmap: 2 MiB for each TiB of disk.
 */
export class ChangedBlocks {
  /** In bytes. */
  readonly blockSize = CBT_BLOCK_SIZE;
  /** In bytes. */
  readonly diskSize: number;
  /** How many blocks of the disk changed. */
  readonly count: number;
  /** What they cover, in bytes; the last block ends where the disk ends. */
  readonly changedBytes: number;
  /** Whole words; bits beyond the last block are clear. */
  readonly #words: Uint32Array;

  private constructor(words: Uint32Array, diskSize: number) {
    const bits = bytesOf(words);
    const blockCount = blockCountOf(diskSize);
    clearFrom(bits, blockCount);
    this.#words = words;
    this.diskSize = diskSize;
    this.count = countSetBits(bits, blockCount);
    const beyondEnd = hasBit(bits, blockCount - 1) ? blockCount * CBT_BLOCK_SIZE - diskSize : 0;
    this.changedBytes = this.count * CBT_BLOCK_SIZE - beyondEnd;
  }

  /**
   * Reads the host's answer to `VDI.list_changed_blocks`. White space in the text and bits beyond the last block are
   * ignored, whatever they hold.
   *
   * @throws FormatError `CBT_BASE64` where the text is no base64; `CBT_LENGTH` where it holds more or fewer bytes than
   * a disk of this size needs. RangeError where `diskSize` is no size.
   */
  static fromBase64(text: string, { diskSize, name }: ChangedBlocksOptions): ChangedBlocks {
    assertSize('diskSize', diskSize);
    const expected = Math.ceil(blockCountOf(diskSize) / 8);
    const base64 = /\s/.test(text) ? text.replace(/\s+/g, '') : text;
    const actual = decodedLength(base64, name);
    if (actual !== expected) {
      throw new FormatError('CBT_LENGTH', {
        what: `bitmap of changed blocks of a disk of ${diskSize} bytes`,
        offset: 0,
        expected: `${expected} bytes`,
        actual: `${actual} bytes`,
        file: name,
      });
    }
    const words = new Uint32Array(Math.ceil(expected / 4));
    Buffer.from(words.buffer).write(base64, 'base64');
    return new ChangedBlocks(words, diskSize);
  }

  /** Did the block with this index (from 0) change? `false` beyond the disk's end. */
  has(index: number): boolean {
    return Number.isSafeInteger(index) && index >= 0 && hasBit(bytesOf(this.#words), index);
  }

  /**
   * The changed runs, ascending and never touching, the last cut at the disk's end. Found as they are asked for, by
   * words of the bitmap: no list is made.
   */
  *extents(options: ChangedExtentsOptions = {}): Generator<ChangedExtent, void> {
    const { mergeGap = 0, offset = 0 } = options;
    const length = options.length ?? this.diskSize - offset;
    assertSize('mergeGap', mergeGap);
    assertRange('changed blocks', this.diskSize, offset, length);
    const end = offset + length;
    // A run outside the range matters only where the gap between them is joined, so it lies at most `mergeGap` away.
    const firstBlock = Math.floor(Math.max(offset - mergeGap, 0) / CBT_BLOCK_SIZE);
    const blockCount = Math.ceil(Math.min(end + mergeGap, this.diskSize) / CBT_BLOCK_SIZE);
    const runs = runsOfSetBits(bytesOf(this.#words), blockCount, firstBlock);
    for (const run of joinRuns(runs, Math.floor(mergeGap / CBT_BLOCK_SIZE))) {
      const from = Math.max(run.start * CBT_BLOCK_SIZE, offset);
      const to = Math.min((run.start + run.count) * CBT_BLOCK_SIZE, end);
      if (from < to) yield { offset: from, length: to - from };
    }
  }

  /** What changed in either: the changes of two steps, one after the other. Both must be of one disk size. */
  union(other: ChangedBlocks): ChangedBlocks {
    return this.#combine(other, (mine, theirs) => mine | theirs);
  }

  /** What changed in both. Both must be of one disk size. */
  intersect(other: ChangedBlocks): ChangedBlocks {
    return this.#combine(other, (mine, theirs) => mine & theirs);
  }

  /** The bitmap as the host sends it, with clear bits beyond the last block. */
  toBase64(): string {
    return Buffer.from(this.#words.buffer, 0, Math.ceil(blockCountOf(this.diskSize) / 8)).toString('base64');
  }

  #combine(other: ChangedBlocks, join: (mine: number, theirs: number) => number): ChangedBlocks {
    if (other.diskSize !== this.diskSize) {
      throw new RangeError(`changed blocks of a disk of ${this.diskSize} bytes and of one of ${other.diskSize} bytes`);
    }
    const theirs = other.#words;
    return new ChangedBlocks(
      this.#words.map((word, at) => join(word, theirs[at]!)),
      this.diskSize,
    );
  }
}

function* joinRuns(runs: Iterable<BitRun>, gap: number): Generator<BitRun, void> {
  let held: BitRun | undefined;
  for (const run of runs) {
    if (held !== undefined && run.start - (held.start + held.count) <= gap) {
      held = { start: held.start, count: run.start + run.count - held.start };
    } else {
      if (held !== undefined) yield held;
      held = run;
    }
  }
  if (held !== undefined) yield held;
}

function blockCountOf(diskSize: number): number {
  return Math.ceil(diskSize / CBT_BLOCK_SIZE);
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

/** Clears what a bitmap holds beyond its first `bitCount` bits. */
function clearFrom(bitmap: Uint8Array, bitCount: number): void {
  const whole = Math.floor(bitCount / 8);
  if (bitCount % 8 > 0) bitmap[whole] = bitmap[whole]! & ~(0xff >>> (bitCount % 8));
  bitmap.fill(0, Math.ceil(bitCount / 8));
}

/** How many bytes a text of base64 stands for, without decoding it. */
function decodedLength(base64: string, name: string | undefined): number {
  const bad = base64.search(/[^A-Za-z0-9+/]/);
  const digits = bad < 0 ? base64.length : bad;
  const padding = base64.slice(digits);
  if (base64.length % 4 !== 0 || !/^={0,2}$/.test(padding)) {
    throw new FormatError('CBT_BASE64', {
      what: 'base64 text of changed blocks',
      offset: digits,
      expected: 'groups of four of A-Z a-z 0-9 + / with = at the end',
      actual: padding === '' ? `${base64.length} characters` : JSON.stringify(padding.slice(0, 16)),
      file: name,
    });
  }
  return (base64.length / 4) * 3 - padding.length;
}

function assertSize(what: string, bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) throw new RangeError(`${what} ${bytes} must be a size in bytes`);
}
