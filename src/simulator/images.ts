import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { assertRange } from '../bytes/index.ts';
import { type Disk, type Extent, hashDisk, joinExtents, type RangeOptions, rangeOf } from '../disk/index.ts';
import { type ChangeBitmap, changeBitmap } from './change-bitmap.ts';
import type { Image, ImageNode, ImageStore } from './image.ts';
import { COPY_SIZE, fileLayer, IMAGE_BLOCK_SIZE, type Layer, rawFileLayer, type WritableLayer } from './image-layer.ts';

const BLOCK_OVERHEAD = 4096; // bitmap and alignment of a block in a VHD on storage

/** A node of the storage's tree, and how many images and children need it. */
interface Node extends ImageNode {
  readonly layer: Layer;
  readonly parent: Node | undefined;
  holders: number;
}

/** A virtual size as SRs of VHDs round it: up to whole blocks of 2 MiB, at least one. */
export function roundToVhdSize(size: number): number {
  return Math.max(1, Math.ceil(size / IMAGE_BLOCK_SIZE)) * IMAGE_BLOCK_SIZE;
}

/**
 * Images as chains of sparse files in `directory`, which must exist. Terabytes that were never written cost nothing.
 * Storage is given out in blocks of 2 MiB; a write in a new leaf copies up what it leaves of 64 KiB at its edges.
 */
export function createImageStore(directory: string): ImageStore {
  const nodes = new Set<Node>();

  function addNode(layer: Layer, parent: Node | undefined): Node {
    if (parent !== undefined) parent.holders++;
    const node: Node = { id: randomUUID(), layer, parent, holders: 1, ownBlocks: () => layer.blocks() };
    nodes.add(node);
    return node;
  }

  async function release(node: Node): Promise<void> {
    for (let at: Node | undefined = node; at !== undefined && --at.holders === 0; at = at.parent) {
      nodes.delete(at);
      await at.layer.drop();
    }
  }

  /** An image whose leaf is new and empty. */
  function imageOn(root: Node | undefined, initialSize: number): Image {
    let size = initialSize;
    let leafLayer: WritableLayer;
    let leaf: Node;
    let changes: ChangeBitmap | undefined;
    let destroyed = false;
    let queue: Promise<unknown> = Promise.resolve();
    addLeaf(root);

    function addLeaf(parent: Node | undefined): void {
      leafLayer = fileLayer(join(directory, `${randomUUID()}.img`));
      leaf = addNode(leafLayer, parent);
    }

    /** One change at a time: each reads what the one before has left. */
    function inTurn<T>(work: () => Promise<T>): Promise<T> {
      const run = queue.then(() => {
        assertAlive();
        return work();
      });
      queue = run.catch(() => {}); // whoever called sees its failure
      return run;
    }

    function assertAlive(): void {
      if (destroyed) throw new Error('the image was destroyed');
    }

    /** Reads within one block, from a node and what is below it. */
    async function readPiece(from: Node | undefined, target: Uint8Array, offset: number): Promise<void> {
      const block = Math.floor(offset / IMAGE_BLOCK_SIZE);
      const top = chain(from).find(({ layer }) => layer.has(block));
      if (top === undefined) {
        target.fill(0);
        return;
      }
      for (let done = 0; done < target.byteLength; ) {
        const { held, length } = top.layer.run(offset + done);
        const part = target.subarray(done, done + length);
        if (held) await top.layer.read(part, offset + done);
        else await readPiece(top.parent, part, offset + done);
        done += part.byteLength;
      }
    }

    /** Writes within one block; where a node below has it, too, what the write leaves of its first and last 64 KiB. */
    async function writePiece(data: Uint8Array, offset: number): Promise<void> {
      const end = offset + data.byteLength;
      const first = offset - (offset % COPY_SIZE);
      const last = end - (end % COPY_SIZE);
      const copyEnd = last < end ? Math.min(last + COPY_SIZE, size) : end;
      const whole = offset === first && end === copyEnd;
      if (whole || !isBelow(Math.floor(offset / IMAGE_BLOCK_SIZE))) return leafLayer.write(data, offset);
      const bytes = new Uint8Array(copyEnd - first);
      await readPiece(leaf, bytes.subarray(0, COPY_SIZE), first);
      if (copyEnd > end && last > first) await readPiece(leaf, bytes.subarray(last - first), last);
      bytes.set(data, offset - first);
      return leafLayer.write(bytes, first);
    }

    function isBelow(block: number): boolean {
      return chain(leaf.parent).some(({ layer }) => layer.has(block));
    }

    async function branch(): Promise<Image> {
      // A leaf without data has nothing to freeze: both hang on its parent, and the chain stays short.
      if (leafLayer.count === 0) return imageOn(leaf.parent, size);
      const frozen = leaf;
      addLeaf(frozen);
      frozen.holders--; // the image itself lets go of it; the leaf above holds it
      return imageOn(frozen, size);
    }

    function assertTracking(): ChangeBitmap {
      if (changes === undefined) throw new Error('the image has no change log');
      return changes;
    }

    const image: Image = {
      get size() {
        return size;
      },
      get nodes() {
        return chain(leaf);
      },
      async read(target, offset) {
        assertAlive();
        assertRange('image', size, offset, target.byteLength);
        for (const [from, to] of pieces(offset, target.byteLength)) {
          await readPiece(leaf, target.subarray(from - offset, to - offset), from);
        }
      },
      write: (data, offset) =>
        inTurn(async () => {
          assertRange('image', size, offset, data.byteLength);
          changes?.mark(offset, data.byteLength);
          for (const [from, to] of pieces(offset, data.byteLength)) {
            await writePiece(data.subarray(from - offset, to - offset), from);
          }
        }),
      snapshot: () => inTurn(branch),
      clone: () => inTurn(branch),
      resize: (newSize) =>
        inTurn(async () => {
          if (!Number.isSafeInteger(newSize) || newSize < size) {
            throw new RangeError(`an image of ${size} bytes cannot become one of ${newSize}: it can only grow`);
          }
          size = newSize;
        }),
      async destroy() {
        if (destroyed) return;
        destroyed = true;
        await queue;
        await release(leaf);
      },
      async allocatedBlocks() {
        const lists = await Promise.all(chain(leaf).map((node) => node.ownBlocks()));
        return [...new Set(lists.flat())].sort((a, b) => a - b);
      },
      physicalSize: async () => leafLayer.count * (IMAGE_BLOCK_SIZE + BLOCK_OVERHEAD),
      startTracking() {
        changes ??= changeBitmap();
      },
      stopTracking() {
        changes = undefined;
      },
      get tracking() {
        return changes !== undefined;
      },
      readChanges: () => assertTracking().toBytes(size),
      takeChanges() {
        const taken = assertTracking().toBytes(size);
        changes = changeBitmap();
        return taken;
      },
      hash: () => hashDisk(imageDisk(image)),
    };
    return image;
  }

  return {
    async create(size) {
      if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`an image cannot have ${size} bytes`);
      return imageOn(undefined, size);
    },
    async fromRawFile(path, size) {
      const layer = await rawFileLayer(path);
      const wanted = size ?? roundToVhdSize(layer.size);
      if (!Number.isSafeInteger(wanted) || wanted < layer.size) {
        await layer.drop();
        throw new RangeError(`${path} has ${layer.size} bytes: too many for an image of ${wanted}`);
      }
      const root = addNode(layer, undefined);
      const image = imageOn(root, wanted);
      root.holders--; // held by the leaf
      return image;
    },
    async close() {
      const all = [...nodes];
      nodes.clear();
      await Promise.all(all.map((node) => node.layer.drop()));
    },
  };
}

/** An image as a disk of the library's `disk` layer, to be hashed, compared or served. Closing it does nothing. */
export function imageDisk(image: Image): Disk {
  async function* extents(options: RangeOptions): AsyncGenerator<Extent, void> {
    const { offset, end } = rangeOf('image', image.size, options);
    const allocated = new Set(await image.allocatedBlocks());
    for (const [from, to] of pieces(offset, end - offset)) {
      const kind = allocated.has(Math.floor(from / IMAGE_BLOCK_SIZE)) ? 'data' : 'zero';
      yield { offset: from, length: to - from, kind };
    }
  }
  return {
    get size() {
      return image.size;
    },
    extents: (options = {}) => joinExtents(extents(options)),
    async readInto(target, offset, { signal } = {}) {
      signal?.throwIfAborted();
      await image.read(target, offset);
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
}

/**
 * The blocks in which two images may differ, as the host finds them for a `base` export: every block allocated in a
 * node that only one of the two chains has. Ascending.
 *
 * @see xapi-project/xen-api `ocaml/libs/vhd/vhd_format/f.ml` `include_block`
 */
export async function blocksThatMayDiffer(image: Image, base: Image): Promise<readonly number[]> {
  const ids = [new Set(image.nodes.map(({ id }) => id)), new Set(base.nodes.map(({ id }) => id))] as const;
  const apart = [...image.nodes.filter(({ id }) => !ids[1].has(id)), ...base.nodes.filter(({ id }) => !ids[0].has(id))];
  const lists = await Promise.all(apart.map((node) => node.ownBlocks()));
  return [...new Set(lists.flat())].sort((a, b) => a - b);
}

/** The node and all below it. */
function chain(node: Node | undefined): Node[] {
  const nodes: Node[] = [];
  for (let at = node; at !== undefined; at = at.parent) nodes.push(at);
  return nodes;
}

/** A range cut at the edges of blocks. */
function* pieces(offset: number, length: number): Generator<readonly [from: number, to: number], void> {
  const end = offset + length;
  for (let from = offset; from < end; ) {
    const to = Math.min(from - (from % IMAGE_BLOCK_SIZE) + IMAGE_BLOCK_SIZE, end);
    yield [from, to];
    from = to;
  }
}
