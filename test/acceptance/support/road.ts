import { randomBytes } from 'node:crypto';
import {
  type BackupResult,
  backupVm,
  type PlanBackupOptions,
  type RunBackupOptions,
} from '../../../src/backup/index.ts';
import { hashDisk } from '../../../src/disk/index.ts';
import type { LogEntry, NewVm } from '../../../src/simulator/index.ts';
import type { PointId } from '../../../src/store/index.ts';
import { type Pool, type PoolOptions, startPool } from '../../support/pool.ts';
import type { RowProfile } from './row.ts';

export const MIB = 1024 * 1024;
export const KIB64 = 64 * 1024;

export type RoadVm = Awaited<ReturnType<Pool['simulator']['createVm']>>;

/** A pool of the profile with one running VM of two disks that hold data. */
export interface Road extends Pool {
  readonly vm: RoadVm;
  backup(options?: Omit<PlanBackupOptions & RunBackupOptions, 'vm'>): Promise<BackupResult>;
  /** SHA-256 of each disk of the VM as it is now, by uuid. */
  hashes(): Promise<Record<string, string>>;
  /** What was asked of the host since the last time, oldest first. */
  asked(): readonly LogEntry[];
}

export async function startRoad(
  profile: RowProfile,
  nbd = true,
  vmOptions: NewVm = {},
  poolOptions: PoolOptions = {},
): Promise<Road> {
  const hasNbd = profile !== 'xenserver-7.2'; // the purpose came with 7.3
  const pool = await startPool({ ...poolOptions, profile, nbd: nbd && hasNbd, password: 'Never-In-A-File-4711' });
  const vm = await pool.simulator.createVm({
    name: 'web',
    disks: [{ size: 16 * MIB }, { size: 32 * MIB }],
    vifs: [{}, {}],
    cd: 'empty',
    ...vmOptions,
  });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB + 512, randomBytes(300_000));
  await pool.simulator.writeDisk(vm.uuid, '1', 20 * MIB, randomBytes(3 * MIB));
  return {
    ...pool,
    vm,
    backup: (options = {}) => backupVm(pool.host, pool.repository, { ...options, vm: vm.uuid }),
    async hashes() {
      const hashes: Record<string, string> = {};
      for (const { uuid } of vm.disks) hashes[uuid] = await pool.simulator.hashDisk(uuid);
      return hashes;
    },
    asked() {
      const entries = [...pool.simulator.log.entries];
      pool.simulator.log.clear();
      return entries;
    },
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  };
}

/** SHA-256 of each disk as the repository has it at a point. */
export async function storedHashes({ repository, vm }: Road, point: PointId): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const { uuid } of vm.disks) {
    await using disk = await repository.openDisk(point, uuid);
    hashes[uuid] = await hashDisk(disk);
  }
  return hashes;
}

/** Names of calls, without their `Async.`, and of HTTP requests. */
export function namesOf(entries: readonly LogEntry[]): string[] {
  return entries
    .filter(({ kind }) => kind !== 'nbd')
    .map(({ kind, method, path }) => (kind === 'call' ? method.replace(/^Async\./, '') : `${method} ${path}`));
}

/** Snapshots of VMs that are on the host. */
export async function snapshotsOn({ host }: Pool): Promise<string[]> {
  return (await host.listRecords('VM')).filter((vm) => vm.is_a_snapshot).map((vm) => vm.uuid);
}

/** Gives the VM another disk with data. */
export async function addDisk({ host, simulator, vm }: Road): Promise<string> {
  const sr = (await host.listDisks(vm.uuid))[0]!.sr;
  const template = { SR: sr.ref, virtual_size: 8 * MIB, type: 'user', sharable: false, read_only: false };
  const vdi = await host.callAsync<string>('VDI.create', [{ ...template, name_label: 'new', other_config: {} }]);
  const bus = { userdevice: '5', bootable: false, mode: 'RW', type: 'Disk', empty: false, other_config: {} };
  const qos = { qos_algorithm_type: '', qos_algorithm_params: {} };
  await host.callAsync('VBD.create', [{ VM: vm.ref, VDI: vdi, ...bus, ...qos }]);
  await simulator.writeDisk(vdi, undefined, 0, randomBytes(MIB));
  return vdi;
}
