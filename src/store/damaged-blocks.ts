import { createHash } from 'node:crypto';
import { type ByteSource, sourceChunks } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { DIGEST_BLOCK_SIZE, type Disk } from '../disk/index.ts';
import type { VhdDisk } from '../vhd/index.ts';
import { decodeDigests } from './digest-table.ts';
import { digestsName, vmFolder } from './layout.ts';
import type { Manifest, ManifestDisk } from './manifest.ts';
import { type Layer, openManifestLayer, openThere } from './open-disk.ts';
import type { Store } from './store.ts';

/** A run of blocks that are not as they were written. */
export interface DamagedRun {
  /** On the disk, in bytes. */
  readonly offset: number;
  readonly length: number;
  /** Of the first block in the layer's file, in bytes. */
  readonly fileOffset: number;
}

/** More runs than a person reads: the rest of the layer is not looked at. */
const MOST_RUNS = 100;

/**
 * Where a layer is damaged, by the digests beside it; empty where all blocks are as they were written, so that the damage
 * is outside of them. `undefined` where nobody can tell: no digests, or the layer cannot be opened.
 */
export async function findDamagedBlocks(
  store: Store,
  manifest: Manifest,
  { vdiUuid }: ManifestDisk,
  options: CallOptions,
): Promise<DamagedRun[] | undefined> {
  const name = digestsName(vdiUuid, manifest.point);
  const record = manifest.files.find((file) => file.name === name);
  if (record === undefined) return undefined;
  const file = vmFolder(manifest.vm.uuid) + name;
  await using table = await openThere(store, file, record, options);
  if ((await hashSource(table, options)) !== record.sha256) return undefined;
  const layer = await openManifestLayer(store, manifest, vdiUuid, options);
  try {
    return await compare(layer, table, file, options);
  } finally {
    await layer.disk.close();
  }
}

async function compare(
  { disk, entry }: Layer,
  table: ByteSource,
  file: string,
  options: CallOptions,
): Promise<DamagedRun[]> {
  const runs: { offset: number; length: number; fileOffset: number }[] = [];
  const block = new Uint8Array(DIGEST_BLOCK_SIZE);
  for await (const { offset, sha256 } of decodeDigests(table, file, options)) {
    const data = block.subarray(0, Math.min(DIGEST_BLOCK_SIZE, disk.size - offset));
    const found = createHash('sha256');
    await readOwn(disk, offset, data, options);
    if (found.update(data).digest('hex') === sha256) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      last.length += data.byteLength;
      continue;
    }
    if (runs.length === MOST_RUNS) break;
    const fileOffset = entry.format === 'raw' ? offset : ((disk as VhdDisk).fileOffsetOf(offset) ?? 0);
    runs.push({ offset, length: data.byteLength, fileOffset });
  }
  return runs;
}

/** What the layer itself holds, zeros in between. */
async function readOwn(disk: Disk, offset: number, data: Uint8Array, options: CallOptions): Promise<void> {
  data.fill(0);
  for await (const extent of disk.extents({ ...options, offset, length: data.byteLength })) {
    if (extent.kind !== 'data') continue;
    const at = extent.offset - offset;
    await disk.readInto(data.subarray(at, at + extent.length), extent.offset, options);
  }
}

/** The SHA-256 of everything in a source. */
export async function hashSource(source: ByteSource, { signal }: CallOptions): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of sourceChunks(source, { reuseMemory: true, signal })) hash.update(chunk);
  return hash.digest('hex');
}
