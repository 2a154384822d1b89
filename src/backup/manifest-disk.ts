import { randomUUID } from 'node:crypto';
import type { RunRecorder } from '../core/index.ts';
import type { ManifestDisk } from '../store/index.ts';
import { toVhdTime } from '../vhd/index.ts';
import type { DiskPlan } from './backup-plan.ts';
import type { DiskJob, StoredLayer } from './transfer-disk.ts';
import { TRACKING_ENABLED } from './unfinished.ts';

/** What became of a disk that was transferred. */
interface Transferred {
  readonly job: DiskJob;
  readonly layer: StoredLayer;
  readonly bytesMoved: number;
  readonly recorder: RunRecorder;
}

/** A disk's entry in the manifest; without `done`, that of an excluded disk. */
export function manifestDisk(plan: DiskPlan, done?: Transferred): ManifestDisk {
  const { vdiUuid, reason } = plan;
  const common = commonOf(plan);
  if (done === undefined) return { ...common, mode: 'excluded', reason, transport: 'none', bytesMoved: 0 };
  const { job, layer, bytesMoved, recorder } = done;
  const ledger = (topic: string) => recorder.decisions.find((line) => line.subject === vdiUuid && line.topic === topic);
  return {
    ...common,
    mode: job.delta === undefined ? 'full' : 'delta',
    reason: ledger('fallback')?.reason ?? reason,
    transport: layer.transport,
    file: layer.file.name,
    format: layer.identity === undefined ? 'raw' : 'vhd',
    ...layer.identity,
    basePoint: job.delta === undefined ? undefined : plan.base?.point,
    snapshotVdiUuid: job.snapshot.snapshotVdiUuid,
    digest: layer.digest,
    bytesMoved,
    changedBytes: job.delta?.changed?.changedBytes,
    trackingEnabled: TRACKING_ENABLED.has(ledger('tracking')?.choice),
  };
}

/** The entry of a disk inside an archive. Deltas will name the VHD that it becomes outside. */
export function imageDisk({ plan, snapshot }: DiskJob, bytesMoved: number, takenAt: Date): ManifestDisk {
  return {
    ...commonOf(plan),
    mode: 'full',
    reason: plan.reason,
    transport: 'xva',
    vhdUuid: randomUUID(),
    vhdTimestamp: toVhdTime(takenAt),
    snapshotVdiUuid: snapshot.snapshotVdiUuid,
    bytesMoved,
  };
}

function commonOf({ vdiUuid, name, device, size, srUuid, srName, srType }: DiskPlan) {
  return { vdiUuid, name, device, size, srUuid, srName, srType };
}
