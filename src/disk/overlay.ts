import { assertRange } from '../bytes/index.ts';
import { type CallOptions, shownAs } from '../core/index.ts';
import { type Disk, type RangeOptions, rangeOf } from './disk.ts';
import { cutExtent, type Extent, type ExtentKind, joinExtents } from './extent.ts';

/** A run that one layer answers for: the index of that layer, or -1 where no layer says anything. */
interface Owned {
  readonly offset: number;
  readonly length: number;
  readonly kind: ExtentKind;
  readonly layer: number;
}

/**
 * Layers stacked into one disk, bottom first: each byte comes from the uppermost layer that says something about it.
 * The size is that of the top layer. Beyond a lower layer's end its part reads as zeros, whatever lies below it: that
 * is how every reader of VHD chains sees a disk that grew.
 *
 * What no layer says stays `absent` and is read from the bottom layer, which gives zeros or refuses, as it is made to.
 * Closing the overlay closes the layers, top first.
 */
export function overlay(layers: readonly Disk[]): Disk {
  const top = layers.at(-1);
  if (top === undefined) throw new RangeError('overlay: at least one layer is needed');
  const { size } = top;

  async function* owned(options: RangeOptions): AsyncGenerator<Owned, void> {
    const { offset, end } = rangeOf('overlay', size, options);
    const cursors = layers.map((layer) => new ExtentCursor(layer, offset, end, options.signal));
    try {
      for (let at = offset; at < end; ) {
        options.signal?.throwIfAborted();
        let kind: ExtentKind = 'absent';
        let until = end;
        let layer = cursors.length - 1;
        for (; layer >= 0; layer--) {
          const extent = await cursors[layer]!.at(at);
          until = Math.min(until, extent.offset + extent.length);
          kind = extent.kind;
          if (kind !== 'absent') break;
        }
        yield { offset: at, length: until - at, kind, layer };
        at = until;
      }
    } finally {
      await Promise.all(cursors.map((cursor) => cursor.close()));
    }
  }

  async function readInto(target: Uint8Array, offset: number, options: CallOptions = {}): Promise<void> {
    assertRange('overlay', size, offset, target.byteLength);
    const reads: Promise<void>[] = [];
    try {
      for await (const run of owned({ ...options, offset, length: target.byteLength })) {
        const piece = target.subarray(run.offset - offset, run.offset - offset + run.length);
        if (run.kind === 'zero') piece.fill(0);
        else {
          const read = layers[Math.max(run.layer, 0)]!.readInto(piece, run.offset, options);
          read.catch(() => {}); // not swallowed: awaited below
          reads.push(read);
        }
      }
      await Promise.all(reads);
    } finally {
      await Promise.allSettled(reads); // nobody writes to `target` once this call has settled
    }
  }

  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeAll([...layers].reverse());
    return closing;
  };
  const disk: Disk = {
    size,
    extents: (options = {}) => joinExtents(owned(options)),
    readInto,
    close,
    [Symbol.asyncDispose]: close,
  };
  return shownAs(disk, 'Disk', () => ({ of: 'layers', layerCount: layers.length, size }));
}

/** One layer's extents as they are passed over from left to right; beyond the layer's end there are zeros. */
class ExtentCursor {
  readonly #iterator: AsyncIterator<Extent>;
  readonly #layerEnd: number;
  readonly #end: number;
  #extent: Extent | undefined;

  constructor(layer: Disk, offset: number, end: number, signal: AbortSignal | undefined) {
    this.#end = end;
    this.#layerEnd = Math.min(Math.max(layer.size, offset), end);
    const extents = layer.extents({
      offset: Math.min(offset, layer.size),
      length: this.#layerEnd - Math.min(offset, this.#layerEnd),
      signal,
    });
    this.#iterator = extents[Symbol.asyncIterator]();
  }

  /** The extent that holds `offset`, cut to start there. Offsets must not go back. */
  async at(offset: number): Promise<Extent> {
    if (offset >= this.#layerEnd) return { offset, length: this.#end - offset, kind: 'zero' };
    while (this.#extent === undefined || this.#extent.offset + this.#extent.length <= offset) {
      const next = await this.#iterator.next();
      if (next.done === true) throw new RangeError(`a layer's extents end before ${offset}, not at ${this.#layerEnd}`);
      if (next.value.offset > offset) throw new RangeError(`a layer's extents say nothing about ${offset}`);
      this.#extent = next.value;
    }
    return cutExtent(this.#extent, offset, this.#layerEnd)!;
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}

async function closeAll(disks: readonly Disk[]): Promise<void> {
  const results: PromiseSettledResult<void>[] = [];
  for (const disk of disks) results.push(...(await Promise.allSettled([disk.close()])));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
