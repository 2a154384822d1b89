/** A run of equal bits. */
export interface BitRun {
  /** Index of the first bit. */
  readonly start: number;
  readonly count: number;
}

/**
 * Runs of set bits among the first `bitCount` bits, most significant bit of each byte first, as in VHD's sector
 * bitmaps and the host's changed blocks. Scans words of 32 bits, so long runs cost little.
 */
export function* runsOfSetBits(bitmap: Uint8Array, bitCount: number, from = 0): Generator<BitRun, void> {
  for (let start = nextBit(bitmap, from, bitCount, true); start < bitCount; ) {
    const end = nextBit(bitmap, start, bitCount, false);
    yield { start, count: end - start };
    start = nextBit(bitmap, end, bitCount, true);
  }
}

/** Index of the first bit at or after `from` that is `set`, or `bitCount` where there is none. */
export function nextBit(bitmap: Uint8Array, from: number, bitCount: number, set: boolean): number {
  if (from >= bitCount) return bitCount;
  const view = new DataView(bitmap.buffer, bitmap.byteOffset, bitmap.byteLength);
  const flip = set ? 0 : 0xffffffff;
  let at = from - (from % 32);
  let word = (wordAt(view, at / 8) ^ flip) & (0xffffffff >>> (from % 32));
  while (word === 0) {
    at += 32;
    if (at >= bitCount) return bitCount;
    word = wordAt(view, at / 8) ^ flip;
  }
  return Math.min(at + Math.clz32(word), bitCount);
}

/** How many of the first `bitCount` bits are set. */
export function countSetBits(bitmap: Uint8Array, bitCount: number): number {
  const view = new DataView(bitmap.buffer, bitmap.byteOffset, bitmap.byteLength);
  let count = 0;
  for (let at = 0; at < bitCount; at += 32) {
    const left = bitCount - at;
    const word = wordAt(view, at / 8) & (left >= 32 ? 0xffffffff : ~(0xffffffff >>> left));
    count += bitsOf(word);
  }
  return count;
}

export function hasBit(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[Math.floor(index / 8)] ?? 0) & (0x80 >> (index % 8))) !== 0;
}

/** Sets `count` bits from `start`. */
export function setBits(bitmap: Uint8Array, start: number, count: number): void {
  const end = start + count;
  const firstWhole = Math.min(Math.ceil(start / 8) * 8, end);
  for (let bit = start; bit < firstWhole; bit++) setBit(bitmap, bit);
  const lastWhole = Math.max(Math.floor(end / 8) * 8, firstWhole);
  bitmap.fill(0xff, firstWhole / 8, lastWhole / 8);
  for (let bit = lastWhole; bit < end; bit++) setBit(bitmap, bit);
}

function setBit(bitmap: Uint8Array, index: number): void {
  const at = Math.floor(index / 8);
  bitmap[at] = (bitmap[at] ?? 0) | (0x80 >> (index % 8));
}

/** The 32 bits at byte `at`, missing bytes as zeros. */
function wordAt(view: DataView, at: number): number {
  if (at + 4 <= view.byteLength) return view.getUint32(at);
  let word = 0;
  for (let i = 0; i < 4; i++) word = word * 256 + (at + i < view.byteLength ? view.getUint8(at + i) : 0);
  return word;
}

function bitsOf(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
