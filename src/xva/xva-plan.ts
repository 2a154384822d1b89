import type { CallOptions } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { MAX_CHUNK_NUMBER, XVA_CHUNK_SIZE, type XvaChecksum } from './constants.ts';
import { metadataEntry } from './metadata-archive.ts';
import type { OvaMetadata } from './ova-xml.ts';
import { TAR_BLOCK, tarPadding } from './tar-entry.ts';
import { type XvaDisk, xvaDisks } from './xva-disks.ts';

/** What an archive is made of. */
export interface XvaContents {
  /** Describes the VM, and every disk that has data. */
  readonly metadata: OvaMetadata;
  /** One for each disk of the metadata that has data, see {@link xvaDisks}, of exactly its size. */
  readonly disks: readonly {
    /** The disk's in the metadata, `Ref:<n>`. */
    readonly id: string;
    /** Its data. */
    readonly disk: Disk;
  }[];
}

/** A disk of a planned archive, and the numbers of the chunks that it will have. */
export interface PlannedDisk {
  readonly disk: XvaDisk;
  readonly source: Disk;
  /** Ascending; each stands for its number times 1 MiB. */
  readonly numbers: Uint32Array;
}

/** Everything of an archive but the data: every entry, and the length of all. */
export interface XvaPlan {
  /** The entry `ova.xml`, padded. */
  readonly head: Uint8Array;
  readonly disks: readonly PlannedDisk[];
  /** In bytes. */
  readonly length: number;
}

/** The length of a checksum's text. */
const CHECKSUM_LENGTH: Readonly<Record<XvaChecksum, number>> = { xxhash: 16, sha1: 40 };

/**
 * Decides which chunks an archive has. Each disk's first and last chunk are always there, the others where the disk has
 * data or cannot say. Hosts count chunk numbers in units of the archive's very first chunk: where that is shorter than
 * 1 MiB, because the first disk is, no chunk of the others is left out.
 *
 * @throws RangeError where the disks are not exactly those of the metadata, or have other sizes.
 */
export async function planXva(
  { metadata, disks }: XvaContents,
  checksum: XvaChecksum,
  options: CallOptions = {},
): Promise<XvaPlan> {
  const head = metadataEntry(metadata);
  const expected = xvaDisks(metadata);
  assertDisks(expected, disks);
  const sparse = (expected[0]?.size ?? 0) >= XVA_CHUNK_SIZE;
  const planned: PlannedDisk[] = [];
  let length = head.byteLength + 2 * TAR_BLOCK;
  for (const disk of expected) {
    const source = disks.find(({ id }) => id === disk.id)!.disk;
    const numbers = await chunkNumbers(source, sparse, options);
    planned.push({ disk, source, numbers });
    const whole = TAR_BLOCK + padded(XVA_CHUNK_SIZE) + TAR_BLOCK + padded(CHECKSUM_LENGTH[checksum]);
    const lastLength = disk.size - numbers.at(-1)! * XVA_CHUNK_SIZE;
    length += numbers.length * whole - padded(XVA_CHUNK_SIZE) + padded(lastLength);
  }
  return { head, disks: planned, length };
}

export function chunkName({ id }: XvaDisk, number: number): string {
  return `${id}/${String(number).padStart(8, '0')}`;
}

function padded(size: number): number {
  return size + tarPadding(size);
}

async function chunkNumbers(disk: Disk, sparse: boolean, options: CallOptions): Promise<Uint32Array> {
  const last = Math.ceil(disk.size / XVA_CHUNK_SIZE) - 1;
  if (last > MAX_CHUNK_NUMBER) throw new RangeError(`an archive's disk ends at ${MAX_CHUNK_NUMBER} MiB`);
  if (!sparse) return Uint32Array.from({ length: last + 1 }, (_, number) => number);
  const numbers = [0];
  const add = (number: number) => {
    if (number > numbers.at(-1)!) numbers.push(number);
  };
  for await (const { offset, length, kind } of disk.extents(options)) {
    options.signal?.throwIfAborted();
    if (kind === 'zero' || length === 0) continue;
    const to = Math.floor((offset + length - 1) / XVA_CHUNK_SIZE);
    for (let number = Math.floor(offset / XVA_CHUNK_SIZE); number <= to; number++) add(number);
  }
  add(last);
  return Uint32Array.from(numbers);
}

function assertDisks(expected: readonly XvaDisk[], given: XvaContents['disks']): void {
  const unknown = given.find(({ id }) => !expected.some((disk) => disk.id === id));
  if (unknown !== undefined) throw new RangeError(`disks: ova.xml describes no disk ${unknown.id} with data`);
  // Hosts look for a disk's chunks by the beginning of their names: Ref:1 would take those of Ref:12.
  const [first, second] = expected.flatMap(({ id }) => {
    const longer = expected.find((other) => other.id !== id && other.id.startsWith(id));
    return longer === undefined ? [] : [id, longer.id];
  });
  if (first !== undefined) throw new RangeError(`disks: hosts mix up the ids ${first} and ${second}: give them others`);
  for (const { id, size } of expected) {
    const found = given.filter((disk) => disk.id === id);
    if (found.length !== 1) throw new RangeError(`disks: expected one disk ${id}, got ${found.length}`);
    const actual = found[0]!.disk.size;
    if (actual !== size) throw new RangeError(`disks: ova.xml says ${size} bytes of ${id}, the disk has ${actual}`);
  }
}
