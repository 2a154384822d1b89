import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { restoreVm, verifyRestored } from '../../src/restore/index.ts';
import { type Pool, startPool } from '../support/pool.ts';

const MIB = 1024 * 1024;

async function vmWithData(pool: Pool) {
  const vm = await pool.simulator.createVm({
    name: 'web',
    disks: [{ size: 64 * MIB }, { size: 128 * MIB }],
    vifs: [{}, {}],
    cd: 'empty',
  });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB + 512, randomBytes(300_000));
  await pool.simulator.writeDisk(vm.uuid, '1', 100 * MIB, randomBytes(3 * MIB));
  return vm;
}

async function sourceHashes(pool: Pool, vm: { disks: readonly { uuid: string }[] }): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const { uuid } of vm.disks) hashes[uuid] = await pool.simulator.hashDisk(uuid);
  return hashes;
}

async function pointHashes(pool: Pool, point: { vmUuid: string; point: string }, uuids: string[]) {
  const hashes: Record<string, string> = {};
  for (const uuid of uuids) {
    await using disk = await pool.repository.openDisk(point, uuid);
    hashes[uuid] = await hashDisk(disk);
  }
  return hashes;
}

describe('the whole road', () => {
  test.each(['vhd', 'raw'] as const)(
    'full by %s, two increments, restore of the last and the middle',
    async (transport) => {
      await using pool = await startPool();
      const { simulator, host, repository } = pool;
      const vm = await vmWithData(pool);
      const uuids = vm.disks.map(({ uuid }) => uuid);

      const points: { vmUuid: string; point: string }[] = [];
      const moments: Record<string, string>[] = [];
      for (let step = 0; step < 3; step++) {
        if (step > 0) {
          await simulator.writeDisk(vm.uuid, '0', 10 * MIB * step + 700, randomBytes(70_000));
          await simulator.writeDisk(vm.uuid, '1', 100 * MIB + 65536 * step, new Uint8Array(65536));
        }
        moments.push(await sourceHashes(pool, vm));
        const { point, manifest } = await backupVm(host, repository, { vm: vm.uuid, transport });
        expect(manifest.disks.map(({ mode }) => mode)).toEqual(step === 0 ? ['full', 'full'] : ['delta', 'delta']);
        points.push(point);
      }
      for (const [step, point] of points.entries()) {
        expect(await pointHashes(pool, point, uuids)).toEqual(moments[step]);
      }

      for (const step of [2, 1]) {
        const point = points[step]!;
        const restored = await restoreVm(host, repository, { point });
        expect(restored.identity).toBe('new');
        for (const [source, made] of Object.entries(restored.disks)) {
          expect(await simulator.hashDisk(made)).toBe(moments[step]![source]);
        }
        const verified = await verifyRestored(host, repository, { point, disks: restored.disks });
        expect(verified.map(({ equal }) => equal)).toEqual([true, true]);
      }
    },
  );
});
