import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { type Runner, type Snapshot, takeSnapshot } from '../../src/snapshot/index.ts';
import type { Pool } from '../support/pool.ts';

export const MIB = 1024 * 1024;

/** A process that is not there: no system gives such a number. */
export const DEAD: Runner = { hostname: hostname(), pid: 2 ** 30, thread: 0 };

export type Vm = Awaited<ReturnType<Pool['simulator']['createVm']>>;

export const newRunId = () => randomBytes(6).toString('hex');

export async function twoDiskVm({ simulator }: Pool, name = 'web'): Promise<Vm> {
  const vm = await simulator.createVm({ name, disks: [{ size: 8 * MIB }, { size: 16 * MIB }], cd: 'iso' });
  await simulator.writeDisk(vm.uuid, '0', 512, randomBytes(70_000));
  await simulator.writeDisk(vm.uuid, '1', 3 * MIB, randomBytes(MIB));
  return vm;
}

/** The snapshot of a run that was killed: nobody will take it away. */
export async function abandonedSnapshot({ host }: Pool, vm: Vm, runner = DEAD): Promise<Snapshot> {
  const record = await host.getRecord('VM', vm.uuid);
  return takeSnapshot(host, record, { runId: newRunId(), runner, now: Date.now() });
}

/** Everything of a kind that a user would see: names by uuid. */
export async function everything({ host }: Pool) {
  const vms = await host.listRecords('VM');
  const vdis = await host.listRecords('VDI');
  const names = (records: readonly { uuid: string; name_label: string }[]) =>
    Object.fromEntries(records.map(({ uuid, name_label }) => [uuid, name_label]));
  return {
    vms: names(vms),
    // `base copy`: nodes of the storage's own tree
    vdis: names(vdis.filter(({ managed }) => managed)),
    marks: vms.filter((vm) => !vm.is_a_snapshot).flatMap((vm) => Object.keys(vm.other_config).filter(isOurs)),
    tasks: (await host.listRecords('task')).map((task) => task.name_label),
  };
}

function isOurs(key: string): boolean {
  return key.startsWith('xen-backup-sdk');
}
