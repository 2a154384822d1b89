import { assertRange, type ByteSource, openFileSource } from '../bytes/index.ts';
import { type CallOptions, FormatError, shownAs } from '../core/index.ts';
import { type Disk, type Extent, joinExtents, type RangeOptions, rangeOf } from '../disk/index.ts';
import { BlockAccess, type BlockState, markedRuns, type Run } from './block-access.ts';
import { allocatedBlocks } from './block-table.ts';
import { ABSENT, SECTOR_SIZE, type VhdKind } from './constants.ts';
import { throwFirstError, type VhdFinding } from './findings.ts';
import type { VhdFooter } from './footer.ts';
import type { VhdHeader } from './header.ts';
import { inspectVhd } from './inspect.ts';
import type { VhdParent } from './vhd-link.ts';

/** A VHD as a disk. Closing it closes its source. */
export interface VhdDisk extends Disk {
  /** The last one, or the first where that is damaged. */
  readonly footer: VhdFooter;
  /** `undefined` for a fixed disk. */
  readonly header: VhdHeader | undefined;
  /** Whether it stands alone. */
  readonly kind: VhdKind;
  /** Its own, from the footer. */
  readonly uuid: string;
  /** How a differencing disk names its parent; `undefined` for the others. */
  readonly parent?: VhdParent | undefined;
  /** Indexes of the blocks that are there, ascending; `undefined` for a fixed disk. */
  readonly blockIndexes: Uint32Array | undefined;
  /** What is unusual about the file, for people. */
  readonly warnings: readonly VhdFinding[];
  /** Where in the file, in bytes, the block lies that holds this offset of the disk; `undefined` where there is none. */
  fileOffsetOf(offset: number): number | undefined;
}

export interface OpenVhdOptions extends CallOptions {
  /**
   * The name that errors give to the source.
   * @defaultValue the path, where `source` is one
   */
  readonly file?: string | undefined;
}

/**
 * Opens a fixed, dynamic or differencing VHD by its path or from a source, which the disk then owns (not where this
 * rejects).
 *
 * Sector bitmaps are obeyed to the bit, as XenServer does: a sector whose bit is clear is zero in a dynamic disk and
 * `absent` in a differencing one. Reading what is absent rejects with `VHD_PARENT_NEEDED`: put the disk into an
 * `overlay` above its parent, or use `openVhdChain`. Memory: the block table (4 bytes for 2 MiB of disk) and at most
 * 1 MiB of bitmaps.
 *
 * @throws FormatError `VHD_…` for the first fault that makes the file unusable.
 */
export async function openVhd(source: string | ByteSource, options: OpenVhdOptions = {}): Promise<VhdDisk> {
  if (typeof source !== 'string') return openFrom(source, options);
  const file = await openFileSource(source);
  try {
    return await openFrom(file, { file: source, ...options });
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openFrom(source: ByteSource, { file, signal }: OpenVhdOptions): Promise<VhdDisk> {
  const { findings, structure } = await inspectVhd(source, { signal });
  throwFirstError(findings, file);
  const { blocks, footer, kind, size } = structure!;
  const sparse = blocks && new BlockAccess(source, { ...structure!, blocks });
  const disk: VhdDisk = {
    ...(sparse === undefined ? flatAccess(source, size) : sparseAccess(sparse, file)),
    size,
    footer,
    kind,
    uuid: footer.uuid,
    header: blocks?.header,
    parent: blocks?.parent,
    blockIndexes: blocks && allocatedBlocks(blocks.table),
    warnings: findings,
    fileOffsetOf(offset) {
      if (blocks === undefined) return offset < size ? offset : undefined;
      const sector = blocks.table[Math.floor(offset / blocks.header.blockSize)];
      return sector === undefined || sector === ABSENT ? undefined : sector * SECTOR_SIZE;
    },
    close: () => source.close(),
    [Symbol.asyncDispose]: () => source.close(),
  };
  if (sparse !== undefined) ACCESS.set(disk, sparse);
  const shown = { of: `${kind} VHD`, size, uuid: footer.uuid, parent: blocks?.parent?.uuid };
  return shownAs(disk, 'Disk', () => shown);
}

type Access = Pick<Disk, 'extents' | 'readInto'>;

function flatAccess(source: ByteSource, size: number): Access {
  return {
    async *extents(options) {
      const { offset, end } = rangeOf('VHD', size, options);
      if (end > offset) yield { offset, length: end - offset, kind: 'data' };
    },
    async readInto(target, offset, options) {
      assertRange('VHD', size, offset, target.byteLength);
      await source.readInto(target, offset, options);
    },
  };
}

/** The blocks behind each open disk that has some: for those who stack several and want to look below the surface. */
const ACCESS = new WeakMap<Disk, BlockAccess>();

/** The blocks of an open VHD; `undefined` for a fixed disk, and for what is no VHD. */
export function blocksOf(disk: Disk): BlockAccess | undefined {
  return ACCESS.get(disk);
}

function sparseAccess(blocks: BlockAccess, file?: string): Access {
  const { size, blockSize, hole, source } = blocks;

  async function* extents(options: RangeOptions = {}): AsyncGenerator<Extent, void> {
    const { offset, end } = rangeOf('VHD', size, options);
    for (let at = offset; at < end; ) {
      options.signal?.throwIfAborted();
      const index = Math.floor(at / blockSize);
      if (!blocks.has(index)) {
        const next = Math.min(blocks.nextPresent(index, end) * blockSize, end);
        yield { offset: at, length: next - at, kind: hole };
        at = next;
        continue;
      }
      const next = Math.min((index + 1) * blockSize, end);
      await blocks.prefetch(index, end, options);
      const state = await blocks.state(index, options);
      for (const { from, to } of runsOf(state, index * blockSize, { from: at, to: next })) {
        if (from > at) yield { offset: at, length: from - at, kind: hole };
        yield { offset: from, length: to - from, kind: 'data' };
        at = to;
      }
      if (next > at) yield { offset: at, length: next - at, kind: hole };
      at = next;
    }
  }

  /** `target` is the part of block `index` that starts at `offset`. */
  async function readPart(target: Uint8Array, index: number, offset: number, options: CallOptions): Promise<void> {
    const end = offset + target.byteLength;
    const fillHole = (from: number, to: number) => {
      if (to > from && hole === 'absent') throw parentNeeded(from, to, file);
      target.fill(0, from - offset, to - offset);
    };
    let at = offset;
    const state = await blocks.state(index, options);
    for (const { from, to } of runsOf(state, index * blockSize, { from: offset, to: end })) {
      fillHole(at, from);
      await source.readInto(target.subarray(from - offset, to - offset), blocks.placeOf(from), options);
      at = to;
    }
    fillHole(at, end);
  }

  async function readInto(target: Uint8Array, offset: number, options: CallOptions = {}): Promise<void> {
    assertRange('VHD', size, offset, target.byteLength);
    const end = offset + target.byteLength;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / blockSize);
      const next = Math.min((index + 1) * blockSize, end);
      await readPart(target.subarray(at - offset, next - offset), index, at, options);
      at = next;
    }
  }

  return { extents: (options) => joinExtents(extents(options)), readInto };
}

/** The runs of a block that are there, within `range`; the block starts at `start`. */
function runsOf(state: BlockState, start: number, range: Run): Iterable<Run> {
  if (state === 'none') return [];
  return state === 'full' ? [range] : markedRuns(state, start, range);
}

function parentNeeded(from: number, to: number, file: string | undefined): FormatError {
  return new FormatError('VHD_PARENT_NEEDED', {
    what: 'differencing VHD: disk range',
    offset: from,
    expected: 'data of its own',
    actual: `${to - from} bytes that only the parent holds`,
    file,
  });
}
