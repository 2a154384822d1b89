import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { backupVm, type PlanBackupOptions, type RunBackupOptions } from '../../src/backup/index.ts';
import { RunError } from '../../src/core/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import type { PointId } from '../../src/store/index.ts';
import type { Pool } from '../support/pool.ts';

const MIB = 1024 * 1024;

export async function makeVm({ simulator }: Pool) {
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 32 * MIB }, { size: 24 * MIB }] });
  await simulator.writeDisk(vm.uuid, '0', 0, randomBytes(32 * MIB));
  await simulator.writeDisk(vm.uuid, '1', 4 * MIB, randomBytes(16 * MIB));
  return vm;
}

export type Vm = Awaited<ReturnType<typeof makeVm>>;

/** Backs up until so many bytes of the disk have come, then fails. */
export async function cutShort(
  pool: Pool,
  vm: Vm,
  atBytes: number,
  options: Partial<PlanBackupOptions & RunBackupOptions> = {},
  disk = 0,
) {
  const all = { resumable: true, ...options, vm: vm.uuid };
  const error = await backupVm(pool.host, pool.repository, {
    ...all,
    onProgress(event) {
      if (event.kind !== 'bytes-moved' || event.diskId !== vm.disks[disk]!.uuid) return;
      if (event.movedBytes >= atBytes) throw new Error('the line is cut');
    },
  }).catch((reason: unknown) => reason);
  if (!(error instanceof RunError)) throw new Error(`expected a failure, got ${String(error)}`);
  return error;
}

export const hashesOf = ({ simulator }: Pool, vm: Vm) =>
  Promise.all(vm.disks.map(({ uuid }) => simulator.hashDisk(uuid)));

export async function expectPoint({ repository }: Pool, point: PointId, vm: Vm, hashes: readonly string[]) {
  expect((await repository.verify(point, { level: 'content' })).ok).toBe(true);
  for (const [i, { uuid }] of vm.disks.entries()) {
    await using disk = await repository.openDisk(point, uuid);
    expect(await hashDisk(disk)).toBe(hashes[i]);
  }
}

/** What is kept for a later run: names in the store's folder of temporary files. */
export async function keptFiles({ folder }: Pool): Promise<string[]> {
  return (await readdir(join(folder, '.tmp'))).sort();
}

export async function onHost({ host }: Pool, vm: Vm) {
  const live = await host.getRecord('VM', vm.uuid);
  return {
    snapshots: (await host.listRecords('VM')).filter((one) => one.is_a_snapshot).map(({ uuid }) => uuid),
    disks: (await host.listRecords('VDI')).filter((one) => one.is_a_snapshot).length,
    marks: Object.keys(live.other_config).filter((key) => key.startsWith('xen-backup-sdk')),
    blocked: live.blocked_operations,
    leftovers: await findLeftovers(host),
  };
}

/** Nothing tells that there ever was a run that was cut short. */
export async function expectOver(pool: Pool, vm: Vm) {
  expect(await pool.repository.inspectUnfinished(vm.uuid)).toBeUndefined();
  expect(await keptFiles(pool)).toEqual([]);
}
