import {
  BackupError,
  type CallOptions,
  type Clock,
  type ProgressOptions,
  type RunRecorder,
  systemClock,
} from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { type Snapshot, workingName } from '../snapshot/index.ts';
import type { ManifestDisk, ManifestImage, PointWriter } from '../store/index.ts';
import { checkingXva, peekXvaCompression, type XvaDiskReport, type XvaReport } from '../xva/index.ts';
import type { BackupPlan, DiskPlan } from './backup-plan.ts';
import type { CollectedMetadata } from './collect-metadata.ts';
import { imageDisk } from './manifest-disk.ts';
import { countChunks, type DiskJob } from './transfer-disk.ts';

export interface StoredImage {
  readonly image: ManifestImage;
  /** Each disk's entry in the manifest, by its uuid. */
  readonly disks: ReadonlyMap<string, ManifestDisk>;
}

/**
 * Moves the whole snapshot into the point as one archive, which is checked and hashed while it passes: structure, every
 * checksum, every disk that the plan names.
 *
 * @throws BackupError `TRANSFER_FAILED` where the archive is not whole or not of these disks.
 */
export async function transferImage(
  host: Host,
  writer: PointWriter,
  plan: BackupPlan,
  snapshot: Snapshot,
  jobs: readonly DiskJob[],
  { containsSecrets: secret }: CollectedMetadata,
  recorder: RunRecorder,
  { onProgress, signal, clock = systemClock }: CallOptions & ProgressOptions & { readonly clock?: Clock | undefined },
): Promise<StoredImage> {
  const startedAt = clock.now();
  const { uuid: diskId, name: label } = plan.vm;
  const size = jobs.reduce((sum, job) => sum + job.plan.size, 0);
  onProgress?.({ kind: 'disk-started', run: 'backup', diskId, label, mode: 'image', size });
  // The archive bears the snapshot's name: for as long as that is the VM's, the mark alone says whose the snapshot is.
  await host.call('VM.set_name_label', snapshot.ref, label);
  const { compression = 'none' } = plan;
  await using transfer = await host.exportVm(snapshot.ref, { compression, reuseMemory: true, signal });
  const sent = await peekXvaCompression(transfer.chunks);
  const compressed = sent.compression === 'zstd';
  if (compression === 'zstd' && !compressed) {
    recorder.fallBack('vm', 'zstd', 'none', 'the host does not know zstd and sent the archive plain');
  }
  const meter = recorder.meter();
  const checking = checkingXva(sent.bytes, { signal });
  const totalBytes = compressed ? undefined : size;
  const onMoved = (movedBytes: number) => {
    meter.bytes = movedBytes;
    onProgress?.({ kind: 'bytes-moved', run: 'backup', diskId, movedBytes, totalBytes });
  };
  const counted = countChunks(checking.bytes, onMoved, meter);
  const names = writer.fileNames;
  const name = compressed ? names.imageZstd : names.image;
  await meter.untilDone(writer.writeFile('image', name, counted, { secret, signal, onHashed: meter.onHashed }));
  const report = await checking.report;
  assertWhole(plan, report);
  await host.call('VM.set_name_label', snapshot.ref, workingName({ name_label: label }, snapshot.mark.runId));
  const { bytes: movedBytes, time } = meter;
  onProgress?.({ kind: 'disk-finished', run: 'backup', diskId, movedBytes });
  const durationMs = clock.now() - startedAt;
  const disks = new Map<string, ManifestDisk>();
  for (const job of jobs) {
    const { vdiUuid, name } = job.plan;
    const { dataBytes: bytesMoved } = findDisk(report, job);
    const of = { vdiUuid, name, mode: 'full', transport: 'xva', size: job.plan.size };
    recorder.disks.push({ ...of, bytesMoved, durationMs, time });
    disks.set(vdiUuid, imageDisk(job, bytesMoved, new Date(snapshot.takenAt)));
  }
  return { image: { compression: report.compression, plainLength: report.plainLength }, disks };
}

function assertWhole({ vm }: BackupPlan, { ok, findings, firstBad }: XvaReport): void {
  if (ok) return;
  const what = findings[0]?.message ?? 'it is broken';
  throw new BackupError('TRANSFER_FAILED', `the archive of ${vm.name} (${vm.uuid}) did not come whole: ${what}`, {
    retryable: true,
    facts: { vmUuid: vm.uuid, ...firstBad, finding: findings[0]?.code },
  });
}

function findDisk({ disks }: XvaReport, { plan, snapshot }: DiskJob): XvaDiskReport {
  const found = disks.find(({ vdiUuid }) => vdiUuid === snapshot.snapshotVdiUuid);
  if (found?.size === plan.size) return found;
  throw notInside(plan, found);
}

function notInside({ name, vdiUuid, size }: DiskPlan, found: XvaDiskReport | undefined): BackupError {
  const got = found === undefined ? 'none' : `one of ${found.size} bytes`;
  const message = `${name} (${vdiUuid}): expected a disk of ${size} bytes in the archive, got ${got}`;
  return new BackupError('TRANSFER_FAILED', message, { facts: { vdiUuid } });
}
