import { randomInt } from 'node:crypto';
import type { ChangedBlocks } from '../cbt/index.ts';
import { BackupError, type CallOptions } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';

/** What a truth check has shown. */
export interface TruthCheck {
  readonly compared: number;
  readonly unchanged: number;
  /** In words: how sure that makes us. */
  readonly confidence: string;
}

/**
 * Reads some of the blocks that the host calls unchanged, and compares them with the base in the repository: tracking that
 * lost writes, as after a crash of the host, is found before it is built on.
 *
 * @param count how many blocks of 64 KiB, chosen at random; all where there are no more.
 * @throws BackupError `CBT_UNTRUSTED` at the first difference.
 */
export async function compareUnchanged(
  now: Disk,
  base: Disk,
  changed: ChangedBlocks,
  count: number,
  { signal }: CallOptions = {},
): Promise<TruthCheck> {
  const { blockSize } = changed;
  const chosen = chooseUnchanged(changed, count);
  const [read, held] = [new Uint8Array(blockSize), new Uint8Array(blockSize)];
  for (const index of chosen) {
    const offset = index * blockSize;
    const length = Math.min(blockSize, now.size - offset);
    const [actual, expected] = [read.subarray(0, length), held.subarray(0, length)];
    await now.readInto(actual, offset, { signal });
    const inside = Math.max(0, Math.min(length, base.size - offset));
    if (inside > 0) await base.readInto(expected.subarray(0, inside), offset, { signal });
    expected.fill(0, inside); // behind the end of a base that has grown since
    if (Buffer.compare(actual, expected) === 0) continue;
    const message = `the block at ${offset} is said to be unchanged, and differs from the last point`;
    throw new BackupError('CBT_UNTRUSTED', message, { facts: { offset, length } });
  }
  const unchanged = unchangedCount(changed);
  return { compared: chosen.length, unchanged, confidence: confidenceOf(chosen.length, unchanged) };
}

/** Indexes of blocks that are not marked, ascending, each equally likely. */
export function chooseUnchanged(changed: ChangedBlocks, count: number, random = randomInt): number[] {
  const blocks = Math.ceil(changed.diskSize / changed.blockSize);
  const unchanged = unchangedCount(changed);
  const wanted = Math.min(count, unchanged);
  const chosen = new Set<number>();
  // Draws at random mostly hit what is taken or marked where many are wanted or few are unmarked: then all are listed.
  if (wanted * 4 > unchanged || unchanged * 16 < blocks) {
    const all: number[] = [];
    for (let index = 0; index < blocks; index++) if (!changed.has(index)) all.push(index);
    for (let i = 0; i < wanted; i++) {
      const at = i + random(all.length - i);
      [all[i], all[at]] = [all[at]!, all[i]!];
      chosen.add(all[i]!);
    }
  } else {
    while (chosen.size < wanted) {
      const index = random(blocks);
      if (!changed.has(index)) chosen.add(index);
    }
  }
  return [...chosen].sort((a, b) => a - b);
}

function unchangedCount(changed: ChangedBlocks): number {
  return Math.ceil(changed.diskSize / changed.blockSize) - changed.count;
}

/** If a share `p` were wrong, `n` draws would all miss it with a chance of `(1 - p) ** n`. */
function confidenceOf(compared: number, unchanged: number): string {
  if (compared === unchanged) return `all ${unchanged} unchanged blocks are as in the last point`;
  const share = (1 - 0.05 ** (1 / compared)) * 100;
  return `${compared} of ${unchanged} unchanged blocks are as in the last point: 95 % sure that less than ${share.toPrecision(2)} % are not`;
}
