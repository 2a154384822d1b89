import {
  anySignal,
  BackupError,
  type CallOptions,
  type Clock,
  type ProgressOptions,
  systemClock,
} from '../core/index.ts';
import { BlockDigests } from '../disk/index.ts';
import { fromVhdTime, vhdStream } from '../vhd/index.ts';
import { encodeDigests } from './digest-table.ts';
import { digestsName, manifestName, vmFolder } from './layout.ts';
import type { Lease } from './lease.ts';
import type { Manifest, ManifestDisk, ManifestFile, PointId } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { openMergedDisk, pointBroken } from './open-disk.ts';
import { readManifest } from './points.ts';
import type { Store } from './store.ts';
import { verifyPoints } from './verify.ts';

export interface MergeOptions extends CallOptions, ProgressOptions {
  /** Of the VM. */
  readonly lease: Lease;
  readonly clock?: Clock | undefined;
}

/**
 * Makes a full of an increment, in its place: the layers below it are merged into its own files, whose names and
 * identities stay, so that what builds on it goes on to. The point can be read at every step: first its manifest says that
 * it is being merged, then each layer takes the place of the delta at once, then the manifest says what it has become.
 * Cut short, it is begun anew; the points below stay until somebody removes them.
 *
 * Before anything is changed every byte is compared with its hash: merged, damage would get a new one, and look whole.
 *
 * Memory: as for reading a chain. It needs room for a full of each disk.
 *
 * @throws BackupError `POINT_BROKEN` where the point, or one that it builds on, is not as it was written.
 */
export async function mergePoint(
  store: Store,
  id: PointId,
  { lease, clock = systemClock, onProgress, signal: stop }: MergeOptions,
): Promise<Manifest> {
  const signal = anySignal(stop, lease.signal);
  const manifest = await readManifest(store, id, { signal });
  const deltas = manifest.disks.filter(({ mode }) => mode === 'delta');
  if (deltas.length === 0) return manifest;
  await assertWhole(store, id, { onProgress, signal });
  if (manifest.merging !== true) await rewrite(store, id, { ...manifest, merging: true }, lease);
  const files = new Map<string, ManifestFile>();
  const roots = new Map<string, string>();
  for (const { vdiUuid, name, file, size, digest, vhdUuid, vhdTimestamp } of deltas) {
    const disk = { diskId: vdiUuid, run: 'prune' } as const;
    onProgress?.({ kind: 'disk-started', ...disk, label: name, mode: 'merge', size });
    await using merged = await openMergedDisk(store, id, vdiUuid, { signal });
    const identity = { uuid: vhdUuid, timestamp: timeOf(manifest, vhdTimestamp) };
    const digests = new BlockDigests(size);
    const onBlock = (offset: number, data: Uint8Array) => digests.add(offset, data);
    const vhd = await vhdStream(merged, { ...identity, type: 'dynamic', onBlock, signal });
    const { length } = vhd;
    const chunks = proven(vhd.chunks, file!, digest, digests);
    const secret = manifest.containsSecrets;
    await lease.assertHeld({ signal });
    const written = await store.write(
      vmFolder(id.vmUuid) + file!,
      { length, chunks },
      { replace: true, secret, signal },
    );
    files.set(file!, { name: file!, role: 'disk', ...written });
    const table = digestsName(vdiUuid, id.point);
    const tableWritten = await store.write(vmFolder(id.vmUuid) + table, encodeDigests(digests), {
      replace: true,
      signal,
    });
    files.set(table, { name: table, role: 'digests', ...tableWritten });
    roots.set(vdiUuid, await digests.root());
    onProgress?.({ kind: 'disk-finished', ...disk, movedBytes: written.length });
  }
  signal?.throwIfAborted();
  const { base, merging: _, ...rest } = manifest;
  const merged: Manifest = {
    ...rest,
    type: 'full',
    merged: { at: new Date(clock.now()).toISOString(), base: base! },
    disks: manifest.disks.map((disk) => (disk.mode === 'delta' ? asFull(disk, roots.get(disk.vdiUuid)!) : disk)),
    files: [...manifest.files.filter(({ name }) => !files.has(name)), ...files.values()].sort(byName),
  };
  await rewrite(store, id, merged, lease);
  return merged;
}

async function assertWhole(
  store: Store,
  id: PointId,
  { onProgress, signal }: Pick<MergeOptions, 'onProgress' | 'signal'>,
): Promise<void> {
  const asPrune: MergeOptions['onProgress'] = onProgress && ((event) => onProgress({ ...event, run: 'prune' }));
  const { points } = await verifyPoints(store, id, { level: 'content', onProgress: asPrune, signal });
  const damage = points.flatMap((point) => point.damage);
  if (points.every(({ restorable }) => restorable)) return;
  const what = damage[0]?.message ?? `${manifestName(id)}: a point that it builds on is missing`;
  throw new BackupError('POINT_BROKEN', what, { facts: { ...id, damage } });
}

function asFull({ basePoint, ...disk }: ManifestDisk, digest: string): ManifestDisk {
  return { ...disk, mode: 'full', digest, reason: `merged with what it stood on, ${basePoint}` };
}

/** The layer's own time; only the uuid is what the next one holds on to. */
function timeOf({ createdAt }: Manifest, vhdTimestamp: number | undefined): Date {
  return vhdTimestamp === undefined ? new Date(createdAt) : fromVhdTime(vhdTimestamp);
}

/** Passes the bytes on, and fails before the last is stored where the disk is not the one that was backed up. */
async function* proven(
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  expected: string | undefined,
  digests: BlockDigests,
): AsyncGenerator<Uint8Array, void> {
  yield* chunks;
  const found = await digests.root();
  if (expected !== undefined && found !== expected) throw pointBroken(file, 'digest of the disk', expected, found);
}

function byName(a: ManifestFile, b: ManifestFile): number {
  return a.name < b.name ? -1 : 1;
}

/** Not cut short: an abort in the middle would leave it open which of the two is there. */
async function rewrite(store: Store, id: PointId, manifest: Manifest, lease: Lease): Promise<void> {
  await lease.assertHeld();
  await store.write(manifestName(id), encodeManifest(manifest), { replace: true });
}
