import { type CallOptions, type Clock, type ProgressOptions, systemClock } from '../core/index.ts';
import { fromVhdTime, vhdStream } from '../vhd/index.ts';
import { manifestName, vmFolder } from './layout.ts';
import type { Manifest, ManifestDisk, ManifestFile, PointId } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { openMergedDisk } from './open-disk.ts';
import { readManifest } from './points.ts';
import type { Store } from './store.ts';

export interface MergeOptions extends CallOptions, ProgressOptions {
  readonly clock?: Clock | undefined;
}

/**
 * Makes a full of an increment, in its place: the layers below it are merged into its own files, whose names and
 * identities stay, so that what builds on it goes on to. The point can be read at every step: first its manifest says that
 * it is being merged, then each layer takes the place of the delta at once, then the manifest says what it has become.
 * Cut short, it is begun anew; the points below stay until somebody removes them.
 *
 * Memory: as for reading a chain. It needs room for a full of each disk.
 */
export async function mergePoint(
  store: Store,
  id: PointId,
  { clock = systemClock, onProgress, signal }: MergeOptions = {},
): Promise<Manifest> {
  const manifest = await readManifest(store, id, { signal });
  const deltas = manifest.disks.filter(({ mode }) => mode === 'delta');
  if (deltas.length === 0) return manifest;
  if (manifest.merging !== true) await rewrite(store, id, { ...manifest, merging: true });
  const files = new Map<string, ManifestFile>();
  for (const { vdiUuid, name, file, size, vhdUuid, vhdTimestamp } of deltas) {
    const disk = { diskId: vdiUuid, run: 'prune' } as const;
    onProgress?.({ kind: 'disk-started', ...disk, label: name, mode: 'merge', size });
    await using merged = await openMergedDisk(store, id, vdiUuid, { signal });
    const identity = { uuid: vhdUuid, timestamp: fromVhdTime(vhdTimestamp!) };
    const vhd = await vhdStream(merged, { ...identity, type: 'dynamic', signal });
    const secret = manifest.containsSecrets;
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
  await rewrite(store, id, merged);
  return merged;
}

function asFull({ basePoint, ...disk }: ManifestDisk): ManifestDisk {
  return { ...disk, mode: 'full', reason: `merged with what it stood on, ${basePoint}` };
}

/** Not cut short: an abort in the middle would leave it open which of the two is there. */
async function rewrite(store: Store, id: PointId, manifest: Manifest): Promise<void> {
  await store.write(manifestName(id), encodeManifest(manifest), { replace: true });
}
