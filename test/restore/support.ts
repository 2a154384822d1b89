import { randomBytes } from 'node:crypto';
import { type BackupResult, backupVm, type PlanBackupOptions } from '../../src/backup/index.ts';
import type { NewVm } from '../../src/simulator/index.ts';
import { type Pool, type PoolOptions, startPool } from '../support/pool.ts';

export const MIB = 1024 * 1024;

export type Vm = Awaited<ReturnType<Pool['simulator']['createVm']>>;

/** A pool with a VM that was backed up once. */
export interface BackedUp extends Pool {
  readonly vm: Vm;
  readonly first: BackupResult;
}

export interface BackedUpOptions extends PoolOptions {
  readonly vm?: NewVm;
  readonly backup?: Omit<PlanBackupOptions, 'vm'>;
}

export async function startBackedUp({ vm: newVm, backup, ...options }: BackedUpOptions = {}): Promise<BackedUp> {
  const pool = await startPool(options);
  const vm = await pool.simulator.createVm({
    name: 'web',
    disks: [{ size: 8 * MIB }, { size: 16 * MIB }],
    vifs: [{}, {}],
    cd: 'iso',
    ...newVm,
  });
  for (const { device } of vm.disks)
    await pool.simulator.writeDisk(vm.uuid, device, 3 * MIB + 512, randomBytes(70_000));
  const first = await backupVm(pool.host, pool.repository, { ...backup, vm: vm.uuid });
  return { ...pool, vm, first, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

/** Takes the VM, its snapshots and its disks off the host, as somebody did by mistake. */
export async function lose({ host, vm }: BackedUp): Promise<void> {
  const { power_state } = await host.getRecord('VM', vm.ref);
  if (power_state !== 'Halted') await host.callAsync('VM.hard_shutdown', [vm.ref]);
  const disks = await host.listDisks(vm.ref);
  await host.callAsync('VM.destroy', [vm.ref]);
  for (const { vdi } of disks) await host.callAsync('VDI.destroy', [vdi.ref]);
}

/** All that a user would see: names of VMs and disks by uuid, tasks. */
export async function everything({ host }: Pool) {
  const vdis = await host.listRecords('VDI');
  const names = (records: readonly { uuid: string; name_label: string }[]) =>
    Object.fromEntries(records.map(({ uuid, name_label }) => [uuid, name_label]));
  return {
    vms: names(await host.listRecords('VM')),
    vdis: names(vdis.filter(({ managed }) => managed)),
    vbds: (await host.listRecords('VBD')).length,
    vifs: (await host.listRecords('VIF')).length,
    tasks: (await host.listRecords('task')).map((task) => task.name_label),
  };
}

/** Another SR in the pool, by its reference. */
export function addSr({ simulator }: Pool, type: string, name: string, fields: object = {}): string {
  const { world, refs } = simulator;
  const SR = world.addObject('SR', {
    name_label: name,
    type,
    content_type: 'user',
    physical_size: 1024 ** 4,
    allowed_operations: ['vdi_create'],
    ...fields,
  });
  world.addObject('PBD', { host: refs.host, SR, currently_attached: true, device_config: {} });
  return SR;
}
