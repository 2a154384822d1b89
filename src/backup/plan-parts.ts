import { BackupError, type CallOptions, type Decision, systemClock } from '../core/index.ts';
import type { Host, VdiRecord, VmDisk, VmRecord } from '../host/index.ts';
import type { Manifest, PointId, Repository, Strategy } from '../store/index.ts';
import type { BackupPlan, ByteEstimate, DiskPlan, PlanConflict, PointBase } from './backup-plan.ts';
import type { PlanBackupOptions } from './plan-backup.ts';

/** What the plans of all strategies say alike. */
export function commonPlan(
  vm: VmRecord,
  repository: Repository,
  base: PointBase,
  disks: readonly DiskPlan[],
  options: PlanBackupOptions,
) {
  const { keepForIncremental = true, fullOnly = false, clock = systemClock } = options;
  const incremental = disks.some((disk) => disk.mode === 'delta');
  return {
    format: 1,
    plannedAt: new Date(clock.now()).toISOString(),
    vm: { uuid: vm.uuid, name: vm.name_label, powerState: vm.power_state },
    repositoryId: repository.id,
    type: incremental ? 'incr' : 'full',
    basePoint: incremental && 'manifest' in base ? base.manifest.point : undefined,
    disks,
    expectedBytes: sumBytes(disks),
    keepForIncremental: keepForIncremental && !fullOnly,
    onFallback: options.onFallback ?? 'full',
    quiesce: options.quiesce ?? 'never',
    blockMigration: options.blockMigration ?? true,
    digestDisks: options.digestDisks ?? false,
  } satisfies Partial<BackupPlan>;
}

/** The newest point that a strategy made of the VM; `what` it makes, for the reason where there is none. */
export async function findLatest(
  repository: Repository,
  vmUuid: string,
  strategy: Strategy,
  what: string,
  { signal }: CallOptions,
): Promise<PointBase> {
  const broken: string[] = [];
  const onBroken = (_: unknown, id: PointId) => broken.push(id.point);
  const manifest = await repository.latest(vmUuid, strategy, { onBroken, signal });
  if (broken.length > 0) return { missing: `the newest point ${broken[0]} cannot be read` };
  return manifest === undefined ? { missing: `the repository has no ${what} of this VM` } : { manifest };
}

/** Disks of a point whose layers do not make a whole any more, each with the reason: nothing can build on them. */
export async function findBrokenLayers(
  repository: Repository,
  { vm, point, disks }: Manifest,
  { signal }: CallOptions,
): Promise<Map<string, string>> {
  const broken = new Map<string, string>();
  for (const { vdiUuid, file } of disks) {
    if (file === undefined) continue;
    const reason = await whyBroken(async () => {
      const disk = await repository.openDisk({ vmUuid: vm.uuid, point }, vdiUuid, { signal });
      await disk.close();
    });
    if (reason !== undefined) broken.set(vdiUuid, reason);
  }
  return broken;
}

/** Why a point cannot be built on, if that is what its reading says. */
export async function whyBroken(read: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await read();
    return undefined;
  } catch (error) {
    if (!(error instanceof BackupError) || error.code !== 'POINT_BROKEN') throw error;
    return `the last point is broken: ${error.message}`;
  }
}

/** The snapshots that a point's disks were read from, by disk; `undefined` for one that the host has no more. */
export async function findBaseSnapshots(host: Host, manifest: Manifest): Promise<Map<string, VdiRecord | undefined>> {
  const found = new Map<string, VdiRecord | undefined>();
  for (const { vdiUuid, snapshotVdiUuid } of manifest.disks) {
    if (snapshotVdiUuid !== undefined) found.set(vdiUuid, await host.findRecord('VDI', snapshotVdiUuid));
  }
  return found;
}

/** Disks that a snapshot cannot hold rightly. */
export function diskConflicts(disks: readonly VmDisk[], excluded: ReadonlyMap<string, string>): PlanConflict[] {
  return disks.flatMap(({ vdi }) => {
    if (excluded.has(vdi.uuid)) return [];
    const conflict = (code: string, why: string) => ({
      code,
      subject: vdi.uuid,
      message: `${vdi.name_label} (${vdi.uuid}) ${why}: exclude it`,
    });
    if (vdi.sharable) return [conflict('DISK_SHARED', 'is shared between VMs and cannot be snapshotted')];
    if (vdi.on_boot === 'reset') return [conflict('DISK_RESETS', 'is reset at each boot and cannot be snapshotted')];
    if (vdi.virtual_size % 512 !== 0) return [conflict('DISK_SIZE', 'has a size that is no multiple of 512 bytes')];
    return [];
  });
}

/** For a plan that was to have increments only. */
export function unexpectedFulls(plans: readonly DiskPlan[]): PlanConflict[] {
  return plans
    .filter((plan) => plan.mode === 'full')
    .map((plan) => ({
      code: 'FULL_NEEDED',
      subject: plan.vdiUuid,
      message: `${plan.name} (${plan.vdiUuid}) would be a full: ${plan.reason}`,
    }));
}

/** What a plan decided for a disk, as lines of the ledger. */
export function decisionsOf(plan: DiskPlan): Decision[] {
  const decisions: Decision[] = [{ subject: plan.vdiUuid, topic: 'mode', choice: plan.mode, reason: plan.reason }];
  if (plan.mode === 'full') {
    decisions.push({
      subject: plan.vdiUuid,
      topic: 'transport',
      choice: plan.transport,
      reason: plan.transportReason,
    });
  }
  return decisions;
}

function sumBytes(plans: readonly DiskPlan[]): ByteEstimate {
  const estimates = plans.map((plan) => plan.expectedBytes);
  const upperBound = estimates.reduce((sum, { upperBound }) => sum + upperBound, 0);
  const exact = estimates.every(({ value }) => value !== undefined);
  const value = exact ? estimates.reduce((sum, estimate) => sum + (estimate.value ?? 0), 0) : undefined;
  return { value, upperBound, basis: 'sum over the disks' };
}
