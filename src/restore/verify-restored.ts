import { isZero } from '../bytes/index.ts';
import { BackupError, type CallOptions } from '../core/index.ts';
import { type Disk, rangeOf } from '../disk/index.ts';
import type { Host } from '../host/index.ts';
import type { Manifest, PointId, Repository } from '../store/index.ts';

export interface VerifyRestoredOptions extends CallOptions {
  /** What the disks should hold. */
  readonly point: PointId;
  /** The restored disks: source disk's uuid to the restored one's, as `restoreVm` gives them. */
  readonly disks: Readonly<Record<string, string>>;
  /** Bytes read back so far. */
  readonly onRead?: ((vdiUuid: string, bytes: number) => void) | undefined;
}

/** One disk, read back. */
export interface VerifiedDisk {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  /** The restored disk's uuid. */
  readonly restoredUuid: string;
  /** Does it hold what the point has? */
  readonly equal: boolean;
  /** Offset of the first byte that differs. */
  readonly firstDifference?: number | undefined;
}

/**
 * Reads restored disks back from the host, whole, and compares every byte with the point. The VM must not have been
 * started since. A disk that was excluded from the backup and came back empty must be zeros. Storage may round a disk up:
 * what lies behind the original's end must be zeros. A difference is told, not thrown.
 *
 * @throws BackupError `STREAM_LENGTH` where a restored disk is shorter; what `Repository.openDisk` and `Host.exportDisk`
 * throw.
 */
export async function verifyRestored(
  host: Host,
  repository: Repository,
  options: VerifyRestoredOptions,
): Promise<VerifiedDisk[]> {
  const manifest = await repository.get(options.point, options);
  const results: VerifiedDisk[] = [];
  for (const [vdiUuid, restoredUuid] of Object.entries(options.disks)) {
    await using expected = await expectedDisk(repository, manifest, options, vdiUuid);
    await using transfer = await host.exportDisk(restoredUuid, {
      format: 'raw',
      reuseMemory: true,
      signal: options.signal,
    });
    const firstDifference = await compareStream(expected, transfer.chunks, options, (bytes) =>
      options.onRead?.(vdiUuid, bytes),
    );
    results.push({ vdiUuid, restoredUuid, equal: firstDifference === undefined, firstDifference });
  }
  return results;
}

/** What the point has of a disk; of one that it left out, zeros. */
async function expectedDisk(
  repository: Repository,
  manifest: Manifest,
  { point, signal }: VerifyRestoredOptions,
  vdiUuid: string,
): Promise<Disk> {
  const excluded = manifest.disks.find((disk) => disk.vdiUuid === vdiUuid && disk.mode === 'excluded');
  return excluded === undefined ? repository.openDisk(point, vdiUuid, { signal }) : zeroDisk(excluded.size);
}

function zeroDisk(size: number): Disk {
  return {
    size,
    async *extents(options = {}) {
      const { offset, end } = rangeOf('zeros', size, options);
      if (end > offset) yield { offset, length: end - offset, kind: 'zero' };
    },
    async readInto(target) {
      target.fill(0);
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
}

/** Offset of the first byte where a raw stream differs from a disk that it may be longer than, in zeros. */
async function compareStream(
  disk: Disk,
  chunks: AsyncIterable<Uint8Array>,
  options: CallOptions,
  onRead: (bytes: number) => void,
): Promise<number | undefined> {
  let at = 0;
  let difference: number | undefined;
  for await (const chunk of chunks) {
    difference ??= await differenceAt(disk, chunk, at, options); // read on after a difference: the host's verdict comes last
    at += chunk.byteLength;
    onRead(at);
  }
  if (at >= disk.size) return difference;
  throw new BackupError('STREAM_LENGTH', `the restored disk gave ${at} bytes, the point has ${disk.size}`);
}

async function differenceAt(
  disk: Disk,
  chunk: Uint8Array,
  at: number,
  { signal }: CallOptions,
): Promise<number | undefined> {
  const inside = Math.max(Math.min(chunk.byteLength, disk.size - at), 0);
  const expected = new Uint8Array(inside);
  if (inside > 0) await disk.readInto(expected, at, { signal });
  const head = chunk.subarray(0, inside);
  if (Buffer.compare(expected, head) !== 0) return at + head.findIndex((byte, index) => byte !== expected[index]);
  const tail = chunk.subarray(inside);
  return isZero(tail) ? undefined : at + inside + tail.findIndex((byte) => byte !== 0);
}
