import { type RunRecorder, runAll, systemClock } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import type { Repository, VmMetadata } from '../store/index.ts';
import { grown, importDisk } from './import-disk.ts';
import type { RestoreDiskPlan, RestorePlan } from './restore-plan.ts';
import type { RestoredObjects } from './restored-objects.ts';
import type { RunRestoreOptions } from './run-restore.ts';
import { vdiToCreate } from './vm-record.ts';

/**
 * Makes the disks of the plan and fills them, several at once within the host's limits; the first failure stops the
 * others.
 *
 * @returns source disk's uuid to the new disk's reference.
 */
export async function restoreDisks(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  metadata: VmMetadata,
  made: RestoredObjects,
  recorder: RunRecorder,
  options: RunRestoreOptions,
): Promise<ReadonlyMap<string, string>> {
  const refs = new Map<string, string>();
  const restoreOne = async (disk: RestoreDiskPlan, signal: AbortSignal) => {
    const sr = await host.getRecord('SR', disk.srUuid!);
    const record = metadata.VDI.find(({ uuid }) => uuid === disk.vdiUuid);
    signal.throwIfAborted();
    const target = await made.disk(disk.vdiUuid, vdiToCreate({ name: disk.name, size: disk.size, record }, sr.ref));
    refs.set(disk.vdiUuid, target.ref);
    if (disk.action === 'restore') {
      await fillDisk(host, repository, plan, disk, target, recorder, { ...options, signal });
    }
  };
  const wanted = plan.disks.filter((disk) => disk.action !== 'skip');
  await runAll(wanted, restoreOne, options);
  return refs;
}

async function fillDisk(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  { vdiUuid: diskId, name: label, size, transport }: RestoreDiskPlan,
  target: { readonly ref: string; readonly size: number },
  recorder: RunRecorder,
  { signal, onProgress, clock = systemClock }: RunRestoreOptions,
): Promise<void> {
  if (transport === 'xva') throw new RangeError(`disk ${diskId} comes with the archive of its VM`);
  const startedAt = clock.now();
  await using source = await repository.openDisk(plan.point, diskId, { signal });
  onProgress?.({ kind: 'disk-started', run: 'restore', diskId, label, mode: transport, size });
  const disk = transport === 'raw' ? grown(source, Math.max(source.size, target.size)) : source;
  const meter = recorder.meter();
  const bytesMoved = await importDisk(host, target.ref, disk, {
    transport,
    signal,
    meter,
    onSent: (movedBytes, totalBytes) =>
      onProgress?.({ kind: 'bytes-moved', run: 'restore', diskId, movedBytes, totalBytes }),
  });
  onProgress?.({ kind: 'disk-finished', run: 'restore', diskId, movedBytes: bytesMoved });
  const durationMs = clock.now() - startedAt;
  const of = { vdiUuid: diskId, name: label, mode: 'restore', transport, size };
  recorder.disks.push({ ...of, bytesMoved, durationMs, time: meter.time });
}
