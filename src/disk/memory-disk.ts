import { assertRange, isZero } from '../bytes/index.ts';
import { shownAs } from '../core/index.ts';
import { type RangeOptions, rangeOf, type WritableDisk } from './disk.ts';
import { type Extent, joinExtents } from './extent.ts';

const GRANULE = 64 * 1024;

/** Bytes in memory as a disk, not copied: writes go into `bytes`. Runs of 64 KiB that are all zeros are told as such. */
export function memoryDisk(bytes: Uint8Array): WritableDisk {
  const size = bytes.byteLength;

  function* granules(options: RangeOptions): Generator<Extent, void> {
    const { offset, end } = rangeOf('memory disk', size, options);
    for (let at = offset; at < end; ) {
      options.signal?.throwIfAborted();
      const next = Math.min(at - (at % GRANULE) + GRANULE, end);
      yield { offset: at, length: next - at, kind: isZero(bytes.subarray(at, next)) ? 'zero' : 'data' };
      at = next;
    }
  }

  const disk: WritableDisk = {
    size,
    extents: (options = {}) => joinExtents(granules(options)),
    async readInto(target, offset, { signal } = {}) {
      signal?.throwIfAborted();
      assertRange('memory disk', size, offset, target.byteLength);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async write(data, offset, { signal } = {}) {
      signal?.throwIfAborted();
      assertRange('memory disk', size, offset, data.byteLength);
      bytes.set(data, offset);
    },
    async writeZeroes(offset, length, { signal } = {}) {
      signal?.throwIfAborted();
      assertRange('memory disk', size, offset, length);
      bytes.fill(0, offset, offset + length);
    },
    async flush() {},
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
  return shownAs(disk, 'Disk', () => ({ of: 'memory', size }));
}
