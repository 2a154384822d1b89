import {
  anySignal,
  BackupError,
  type CallOptions,
  type Clock,
  type ProgressOptions,
  systemClock,
} from '../core/index.ts';
import { fromVhdTime, vhdStream } from '../vhd/index.ts';
import { manifestName, vmFolder } from './layout.ts';
import type { Lease } from './lease.ts';
import type { Manifest, ManifestDisk, ManifestFile, PointId } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { openMergedDisk } from './open-disk.ts';
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
  for (const { vdiUuid, name, file, size, vhdUuid, vhdTimestamp } of deltas) {
    const disk = { diskId: vdiUuid, run: 'prune' } as const;
    onProgress?.({ kind: 'disk-started', ...disk, label: name, mode: 'merge', size });
    await using merged = await openMergedDisk(store, id, vdiUuid, { signal });
    const identity = { uuid: vhdUuid, timestamp: fromVhdTime(vhdTimestamp!) };
    const vhd = await vhdStream(merged, { ...identity, type: 'dynamic', signal });
    const secret = manifest.containsSecrets;
    await lease.assertHeld({ signal });
    const written = await store.write(vmFolder(id.vmUuid) + file!, vhd, { replace: true, secret, signal });
    files.set(file!, { name: file!, role: 'disk', ...written });
    onProgress?.({ kind: 'disk-finished', ...disk, movedBytes: written.length });
  }
  signal?.throwIfAborted();
  const { base, merging: _, ...rest } = manifest;
  const merged: Manifest = {
    ...rest,
    type: 'full',
    merged: { at: new Date(clock.now()).toISOString(), base: base! },
    disks: manifest.disks.map((disk) => (disk.mode === 'delta' ? asFull(disk) : disk)),
    files: manifest.files.map((file) => files.get(file.name) ?? file),
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

function asFull({ basePoint, ...disk }: ManifestDisk): ManifestDisk {
  return { ...disk, mode: 'full', reason: `merged with what it stood on, ${basePoint}` };
}

/** Not cut short: an abort in the middle would leave it open which of the two is there. */
async function rewrite(store: Store, id: PointId, manifest: Manifest, lease: Lease): Promise<void> {
  await lease.assertHeld();
  await store.write(manifestName(id), encodeManifest(manifest), { replace: true });
}
