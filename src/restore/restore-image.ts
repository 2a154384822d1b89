import { sourceChunks } from '../bytes/index.ts';
import { BackupError, HostError, type RunRecorder, systemClock, type TransferMeter } from '../core/index.ts';
import { type Host, storesVhds } from '../host/index.ts';
import type { Manifest, ManifestDisk, Repository } from '../store/index.ts';
import { fromVhdTime, vhdStream } from '../vhd/index.ts';
import { rewriteXvaMetadata } from '../xva/index.ts';
import { grown, importDisk, measured } from './import-disk.ts';
import { firstOf, readArchive } from './make-vm.ts';
import type { RestorePlan } from './restore-plan.ts';
import type { RestoredObjects } from './restored-objects.ts';
import { rewriteImage } from './rewrite-image.ts';
import type { RunRestoreOptions } from './run-restore.ts';

/** What the steps of one restore share. */
interface Restoring {
  readonly host: Host;
  readonly repository: Repository;
  readonly plan: RestorePlan;
  /** Of the full. */
  readonly image: Manifest;
  /** Of the point: the same, or an increment. */
  readonly point: Manifest;
  readonly made: RestoredObjects;
  readonly recorder: RunRecorder;
  readonly options: RunRestoreOptions;
}

/**
 * Imports the archive of the full as the VM of the plan, takes its disks out of the VM's hands, and brings each to the
 * point by its one delta. Disks that the point has not are removed again.
 *
 * @returns the VM, without disks, and source disk's uuid to the new disk's reference, without those that are no part of
 * the archive.
 */
export async function restoreImage(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  made: RestoredObjects,
  recorder: RunRecorder,
  options: RunRestoreOptions,
): Promise<{ readonly vmRef: string; readonly disks: Map<string, string> }> {
  const [image, ...later] = await repository.chain(plan.point, options);
  if (image?.image === undefined) throw new RangeError(`${plan.point.point} stands on no image`);
  const restoring = { host, repository, plan, image, point: later.at(-1) ?? image, made, recorder, options };
  const vmRef = await importImage(restoring);
  await made.vm(vmRef);
  const disks = await takeDisks(restoring, vmRef);
  for (const [vdiUuid, ref] of disks) {
    options.signal?.throwIfAborted();
    const entry = restoring.point.disks.find((disk) => disk.vdiUuid === vdiUuid);
    if (entry?.mode === 'delta') await applyDelta(restoring, entry, ref);
    else if (entry === undefined || entry.transport !== 'xva') {
      await made.drop(vdiUuid, options); // gone at the point, or there as a file of its own
      disks.delete(vdiUuid);
    }
  }
  return { vmRef, disks };
}

async function importImage(restoring: Restoring): Promise<string> {
  const { recorder } = restoring;
  try {
    return await sendImage(restoring, false);
  } catch (error) {
    if (!(error instanceof HostError) || error.xapiCode !== 'DUPLICATE_MAC_SEED') throw error;
    // Told before any data flows. The interfaces get their addresses from us: the seed matters only for later ones.
    recorder.warn('MAC_SEED_DROPPED', 'another VM has the same seed for addresses: the restored VM gets a new one');
    return sendImage(restoring, true);
  }
}

async function sendImage(
  { host, repository, plan, image, made, recorder, options }: Restoring,
  dropMacSeed: boolean,
): Promise<string> {
  const { signal, onProgress, clock = systemClock } = options;
  const startedAt = clock.now();
  const { uuid: diskId, name: label } = plan.vm;
  const archive = await readArchive(repository, plan, options);
  const id = { vmUuid: image.vm.uuid, point: image.point };
  await using file = await repository.openFile(id, 'image', { signal });
  const rewriting = { plainLength: image.image!.plainLength, file: `the image of ${image.point}`, signal };
  await using rewritten = await rewriteXvaMetadata(
    sourceChunks(file, { signal }),
    (metadata) =>
      rewriteImage(metadata, archive, { name: made.vmName(plan.name), dropMacSeed, omitVtpm: plan.vtpm === 'omit' }),
    rewriting,
  );
  const { length: totalBytes } = rewritten;
  onProgress?.({ kind: 'disk-started', run: 'restore', diskId, label, mode: 'image', size: totalBytes, totalBytes });
  const meter = recorder.meter();
  const sr = plan.disks.find(({ srUuid }) => srUuid !== undefined)?.srUuid;
  const onSent = (movedBytes: number) =>
    onProgress?.({ kind: 'bytes-moved', run: 'restore', diskId, movedBytes, totalBytes });
  const refs = await measured(meter, rewritten, onSent, (passing, counting) =>
    host.importVm(passing, { sr, restore: plan.identity === 'original', signal, onSent: counting }),
  );
  onProgress?.({ kind: 'disk-finished', run: 'restore', diskId, movedBytes: totalBytes });
  const of = { vdiUuid: diskId, name: label, mode: 'restore', transport: 'xva', size: totalBytes };
  recorder.disks.push({ ...of, bytesMoved: totalBytes, durationMs: clock.now() - startedAt, time: meter.time });
  return firstOf(refs);
}

/** The imported disks, marked as ours and attached to nothing: the point may have them elsewhere than the full. */
async function takeDisks({ host, image, made }: Restoring, vmRef: string): Promise<Map<string, string>> {
  const imported = await host.listDisks(vmRef);
  const refs = new Map<string, string>();
  for (const { vdiUuid, device, name } of image.disks) {
    const found = imported.find(({ vbd }) => vbd.userdevice === device);
    if (found === undefined) throw missing(image, device, name);
    await made.adopt(vdiUuid, { ref: found.vdi.ref, uuid: found.vdi.uuid, name });
    refs.set(vdiUuid, found.vdi.ref);
  }
  for (const { vbd } of imported) await host.callAsync('VBD.destroy', [vbd.ref]);
  return refs;
}

function missing({ point }: Manifest, device: string, name: string): BackupError {
  const message = `the host imported the image of ${point} without its disk ${name} (device ${device})`;
  return new BackupError('HOST_ANSWER_INVALID', message, { facts: { point, device } });
}

/** Brings an imported disk from the full to the point: it is made larger if it has grown, and written over in part. */
async function applyDelta(restoring: Restoring, entry: ManifestDisk, ref: string): Promise<void> {
  const { host, options, recorder } = restoring;
  const { vdiUuid: diskId, name: label, size } = entry;
  const { signal, onProgress, clock = systemClock } = options;
  const startedAt = clock.now();
  const before = await host.getRecord('VDI', ref);
  if (before.virtual_size < size) await host.callAsync('VDI.resize', [ref, size], { signal });
  const { type } = await host.getRecord('SR', before.SR);
  onProgress?.({ kind: 'disk-started', run: 'restore', diskId, label, mode: 'delta', size });
  const onSent = (movedBytes: number, totalBytes: number) =>
    onProgress?.({ kind: 'bytes-moved', run: 'restore', diskId, movedBytes, totalBytes });
  const send = storesVhds(type) ? sendDelta : sendWhole;
  const meter = recorder.meter();
  const bytesMoved = await send(restoring, diskId, ref, meter, onSent);
  onProgress?.({ kind: 'disk-finished', run: 'restore', diskId, movedBytes: bytesMoved });
  const durationMs = clock.now() - startedAt;
  const transport = storesVhds(type) ? 'vhd' : 'raw';
  const of = { vdiUuid: diskId, name: label, mode: 'delta', transport, size };
  recorder.disks.push({ ...of, bytesMoved, durationMs, time: meter.time });
}

type OnSent = (movedBytes: number, totalBytes: number) => void;

/** Only what the delta holds: the host writes the marked sectors of a VHD and touches nothing else. */
async function sendDelta(
  { host, repository, plan, image, options: { signal } }: Restoring,
  vdiUuid: string,
  ref: string,
  meter: TransferMeter,
  onSent: OnSent,
): Promise<number> {
  const below = image.disks.find((disk) => disk.vdiUuid === vdiUuid)!;
  await using layer = await repository.openLayer(plan.point, vdiUuid, { signal });
  const timestamp = fromVhdTime(below.vhdTimestamp!);
  const parent = { uuid: below.vhdUuid!, name: `${image.point}.vhd`, timestamp };
  const stream = await vhdStream(layer, { parent, signal });
  await measured(meter, stream, onSent, (passing, counting) =>
    host.importDisk(ref, passing, { format: 'vhd', signal, onSent: counting }),
  );
  return stream.length;
}

/** All of the disk at the point: some storage takes no VHD onto a disk that has data. */
async function sendWhole(
  { host, repository, plan, options: { signal } }: Restoring,
  vdiUuid: string,
  ref: string,
  meter: TransferMeter,
  onSent: OnSent,
): Promise<number> {
  const { virtual_size } = await host.getRecord('VDI', ref);
  await using disk = await repository.openDisk(plan.point, vdiUuid, { signal });
  return await importDisk(host, ref, grown(disk, virtual_size), { transport: 'raw', signal, meter, onSent });
}
