import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { backupVm, type PlanBackupOptions, type RunBackupOptions } from '../../src/backup/index.ts';
import { BackupError } from '../../src/core/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import type { Store } from '../../src/store/index.ts';
import type { Pool } from '../support/pool.ts';

export const MIB = 1024 * 1024;

export async function smallVm(pool: Pool) {
  const vm = await pool.simulator.createVm({ name: 'web', disks: [{ size: 16 * MIB }, { size: 32 * MIB }] });
  await pool.simulator.writeDisk(vm.uuid, '0', 512, randomBytes(3 * MIB));
  await pool.simulator.writeDisk(vm.uuid, '1', 9 * MIB, randomBytes(5 * MIB));
  return vm;
}

export type Vm = Awaited<ReturnType<typeof smallVm>>;

/** What is on the host besides the VM as it was made, and besides snapshots that older points keep. */
export async function traces({ host }: Pool, vm: Vm, kept: readonly string[] = []) {
  const vms = await host.listRecords('VM');
  const vdis = await host.listRecords('VDI');
  const own = new Set(vm.disks.map(({ uuid }) => uuid));
  const live = await host.getRecord('VM', vm.uuid);
  return {
    snapshots: vms.filter((one) => one.is_a_snapshot && !kept.includes(one.uuid)).map((one) => one.name_label),
    disks: vdis.filter((vdi) => vdi.is_a_snapshot && !own.has(vdi.uuid)).length - 2 * kept.length,
    marks: Object.keys(live.other_config).filter((key) => key.startsWith('xen-backup-sdk')),
    tasks: (await host.listRecords('task')).map((task) => task.name_label),
    leftovers: await findLeftovers(host),
  };
}

export const NOTHING = { snapshots: [], disks: 0, marks: [], tasks: [], leftovers: [] };

/** The next run works and is right. */
export async function expectNextRunRight(
  pool: Pool,
  vm: Vm,
  options: Omit<PlanBackupOptions, 'vm'> & RunBackupOptions = {},
) {
  const { point } = await backupVm(pool.host, pool.repository, { ...options, vm: vm.uuid });
  const report = await pool.repository.verify(point, { level: 'content' });
  expect(report.ok).toBe(true);
}

/** A store whose disk is full after so many bytes of one object. */
export function fullAfter(store: Store, bytes: number): Store {
  async function* limited(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
    let written = 0;
    for await (const chunk of chunks) {
      written += chunk.byteLength;
      if (written > bytes) throw new BackupError('STORE_FULL', 'no space left on device');
      yield chunk;
    }
  }
  return {
    label: store.label,
    write(name, from, options) {
      if (from instanceof Uint8Array) return store.write(name, from, options);
      const chunks = limited('chunks' in from ? from.chunks : from);
      return store.write(name, 'chunks' in from ? { length: from.length, chunks } : chunks, options);
    },
    open: (name, options) => store.open(name, options),
    size: (name, options) => store.size(name, options),
    list: (prefix, options) => store.list(prefix, options),
    remove: (name, options) => store.remove(name, options),
    removeAbandoned: (options) => store.removeAbandoned(options),
    stage: (options) => store.stage(options),
    close: () => store.close(),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}
