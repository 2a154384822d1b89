import { type ByteSource, sourceChunks } from '../bytes/index.ts';
import { anySignal, type CallOptions, type ProgressOptions } from '../core/index.ts';
import { hashSource } from './damaged-blocks.ts';
import { manifestName, vmFolder } from './layout.ts';
import type { Lease, WaitOptions } from './lease.ts';
import type { Manifest, ManifestFile, PointId } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { openRecorded, pointBroken } from './open-disk.ts';
import type { Repository } from './repository.ts';
import type { Store } from './store.ts';

export interface CopyPointOptions extends WaitOptions, ProgressOptions {}

/** What {@link copyPoint} did. */
export interface CopyReport {
  /** Copied now, root first. */
  readonly copied: readonly PointId[];
  /** Of those that are needed, what the target had already. */
  readonly present: readonly PointId[];
  /** Of the files that were copied. */
  readonly bytes: number;
}

/**
 * Copies a point, with all that it builds on, into another repository, under the same names. Every byte is hashed on its
 * way and compared with the manifest, so damage is not copied. A point is there whole or not at all, those it needs before
 * it; what the target has already is left as it is. An interrupted copy is continued by the next.
 *
 * @throws BackupError `NOT_FOUND`; `POINT_BROKEN` where a file is not what the manifest says, or a merge is not done;
 * `LEASE_HELD` where the VM has another writer in the target; `STORE_FULL`, `STORE_IO`.
 */
export async function copyPoint(
  from: Repository,
  to: Repository,
  id: PointId,
  { onProgress, waitMs, signal: stop }: CopyPointOptions = {},
): Promise<CopyReport> {
  const report = { copied: [] as PointId[], present: [] as PointId[], bytes: 0 };
  await using lease = await to.acquireLease(id.vmUuid, { purpose: 'copy', waitMs, onProgress, signal: stop });
  const signal = anySignal(stop, lease.signal);
  for (const manifest of await from.chain(id, { signal })) {
    const one = { vmUuid: manifest.vm.uuid, point: manifest.point };
    if ((await to.store.size(manifestName(one), { signal })) !== undefined) {
      report.present.push(one);
      continue;
    }
    if (manifest.merging === true) {
      throw pointBroken(manifestName(one), 'merging', 'a point that is as it will stay: prune first', 'a merge midway');
    }
    onProgress?.({ kind: 'stage', run: 'copy', stage: one.point, vmUuid: one.vmUuid });
    await copyOne(from.store, to.store, manifest, lease, { onProgress, signal });
    report.copied.push(one);
    report.bytes += manifest.files.reduce((sum, { length }) => sum + length, 0);
  }
  return report;
}

/** The files first, the manifest last. What was copied before a failure is of use to the next copy. */
async function copyOne(
  from: Store,
  to: Store,
  manifest: Manifest,
  lease: Lease,
  options: CopyPointOptions,
): Promise<void> {
  const id = { vmUuid: manifest.vm.uuid, point: manifest.point };
  for (const file of manifest.files) {
    const name = vmFolder(id.vmUuid) + file.name;
    if (await isThere(to, name, file, options)) continue;
    await copyFile(from, to, name, file, manifest.containsSecrets, options);
  }
  await lease.assertHeld(options);
  await to.write(manifestName(id), encodeManifest(manifest), { signal: options.signal });
}

/** Has an earlier copy come so far? What is there and is not the file belongs to no point, and goes. */
async function isThere(to: Store, name: string, record: ManifestFile, { signal }: CallOptions): Promise<boolean> {
  const size = await to.size(name, { signal });
  if (size === undefined) return false;
  if (size === record.length) {
    await using source = await to.open(name, { signal });
    if ((await hashSource(source, { signal })) === record.sha256) return true;
  }
  await to.remove(name, { signal });
  return false;
}

async function copyFile(
  from: Store,
  to: Store,
  name: string,
  record: ManifestFile,
  secret: boolean,
  { onProgress, signal }: CopyPointOptions,
): Promise<void> {
  await using source = await openRecorded(from, name, record, { signal });
  const chunks = counted(source, record, { onProgress, signal });
  const { sha256 } = await to.write(name, { length: record.length, chunks }, { secret, signal });
  if (sha256 === record.sha256) return;
  await to.remove(name);
  throw pointBroken(name, 'SHA-256', record.sha256, sha256);
}

async function* counted(
  source: ByteSource,
  { name: diskId, length: totalBytes }: ManifestFile,
  { onProgress, signal }: CopyPointOptions,
): AsyncGenerator<Uint8Array, void> {
  let movedBytes = 0;
  for await (const chunk of sourceChunks(source, { signal })) {
    yield chunk;
    movedBytes += chunk.byteLength;
    onProgress?.({ kind: 'bytes-moved', run: 'copy', diskId, movedBytes, totalBytes });
  }
}
