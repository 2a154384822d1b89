import { type ByteSource, openFileSource } from '../bytes/index.ts';
import { shownAs } from '../core/index.ts';
import { type Disk, rangeOf } from './disk.ts';

/** A flat source as a disk: byte for byte, nothing known in advance. Closing the disk closes the source. */
export function rawDisk(source: ByteSource): Disk {
  const { size } = source;
  const disk: Disk = {
    size,
    async *extents(options = {}) {
      const { offset, end } = rangeOf('raw disk', size, options);
      if (end > offset) yield { offset, length: end - offset, kind: 'data' };
    },
    readInto: (target, offset, options) => source.readInto(target, offset, options),
    close: () => source.close(),
    [Symbol.asyncDispose]: () => source.close(),
  };
  return shownAs(disk, 'Disk', () => ({ of: 'raw bytes', size }));
}

/** Opens a raw image file for reading. Node cannot ask where a file has holes, so all of it is told as data. */
export async function openRawDisk(path: string): Promise<Disk> {
  return rawDisk(await openFileSource(path));
}
