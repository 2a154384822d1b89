import { BackupError } from '../core/index.ts';
import { type Disk, type Extent, type RangeOptions, rangeOf } from '../disk/index.ts';
import type { ChangedBlocks, ChangedExtentsOptions } from './changed-blocks.ts';

/**
 * A disk of which only the changed runs exist, so that a differencing writer stores these and no more: `data` inside
 * the changed runs, with the gaps that `mergeGap` joins (their bytes are the base's own, so they do no harm); `absent`
 * elsewhere. What the disk knows about zeros is not asked: a changed block of zeros must be stored, or the base's bytes
 * would show through.
 *
 * A read that touches an absent byte rejects with `CBT_NOT_CHANGED`. Closing the result closes `disk`.
 *
 * @throws RangeError where the sizes differ.
 */
export function restrictToChanges(
  disk: Disk,
  changed: ChangedBlocks,
  { mergeGap }: Pick<ChangedExtentsOptions, 'mergeGap'> = {},
): Disk {
  const { size } = disk;
  if (changed.diskSize !== size) {
    throw new RangeError(`changed blocks of a disk of ${changed.diskSize} bytes do not fit a disk of ${size} bytes`);
  }

  async function* extents(options: RangeOptions = {}): AsyncGenerator<Extent, void> {
    const { offset, end } = rangeOf('changed blocks', size, options);
    let at = offset;
    for (const run of changed.extents({ mergeGap, offset, length: end - offset })) {
      options.signal?.throwIfAborted();
      if (run.offset > at) yield { offset: at, length: run.offset - at, kind: 'absent' };
      yield { ...run, kind: 'data' };
      at = run.offset + run.length;
    }
    if (end > at) yield { offset: at, length: end - at, kind: 'absent' };
  }

  return {
    size,
    extents,
    async readInto(target, offset, options) {
      const length = target.byteLength;
      rangeOf('changed blocks', size, { offset, length });
      const [run] = changed.extents({ mergeGap, offset, length });
      if (length > 0 && run?.length !== length) {
        throw new BackupError(
          'CBT_NOT_CHANGED',
          `not all of the ${length} bytes at ${offset} belong to changed blocks`,
          {
            facts: { offset, length },
          },
        );
      }
      await disk.readInto(target, offset, options);
    },
    close: () => disk.close(),
    [Symbol.asyncDispose]: () => disk.close(),
  };
}
