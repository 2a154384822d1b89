import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { bundleChild, runChild } from '../support/run-child.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;

async function snapshotsOf({ host }: Pool): Promise<string[]> {
  return (await host.listRecords('VM')).filter((vm) => vm.is_a_snapshot).map((vm) => vm.uuid);
}

// Each stage leaves another state behind: an intent only, a snapshot, a half-written point, one kept for a point that
// was never committed, a point whose older base is still there.
const STAGES = ['snapshot', 'metadata', 'transfer', 'bytes-moved', 'commit', 'finish'];

test.each(['changed-blocks', 'image'] as const)(
  '%s: after a kill at any stage the next run is right and leaves nothing else',
  { timeout: 180_000 },
  async (strategy) => {
    await using dir = await makeTempDir();
    const child = await bundleChild('kill-child', dir.path);
    await using pool = await startPool();
    const { simulator, host, repository, folder } = pool;
    const { url, username, password, certificate } = simulator;
    const vm = await simulator.createVm({ name: 'web', disks: [{ size: 16 * MIB }, { size: 16 * MIB }] });
    const orders = { url, username, password, certificate, vm: vm.uuid, folder, strategy };
    let points = 0;
    for (const killAt of STAGES) {
      await simulator.writeDisk(vm.uuid, '0', 2 * MIB, randomBytes(3 * MIB));
      await simulator.writeDisk(vm.uuid, '1', 512, randomBytes(MIB));
      expect(await runChild(child, [JSON.stringify({ ...orders, killAt })])).toMatchObject({ signal: 'SIGKILL' });
      points += killAt === 'finish' ? 1 : 0; // only then was the point committed
      expect(await repository.list()).toHaveLength(points);

      await simulator.writeDisk(vm.uuid, '1', 5 * MIB, randomBytes(MIB));
      const hash = await simulator.hashDisk(vm.disks[1]!.uuid);
      const { point, manifest, report } = await backupVm(host, repository, { vm: vm.uuid, strategy });
      points += 1;
      expect(await repository.list()).toHaveLength(points);
      expect((await repository.verify(point, { level: 'content' })).ok).toBe(true);
      await using disk = await repository.openDisk(point, vm.disks[1]!.uuid);
      expect(await hashDisk(disk)).toBe(hash);

      const base = strategy === 'image' && manifest.base !== undefined ? manifest.base : manifest.point;
      const { snapshot } = await repository.get({ vmUuid: vm.uuid, point: base });
      expect(await snapshotsOf(pool), `after a kill at ${killAt}`).toEqual([snapshot.uuid]);
      expect((await host.listRecords('VDI')).filter((vdi) => vdi.is_a_snapshot)).toHaveLength(2);
      expect(await findLeftovers(host)).toEqual([]);
      const { other_config, blocked_operations } = await host.getRecord('VM', vm.uuid);
      expect(blocked_operations).toEqual({});
      const keys = Object.keys(other_config);
      expect(keys.filter((key) => key.startsWith('xen-backup-sdk'))).toEqual([]);
      expect(report.warnings.filter(({ code }) => code.endsWith('_LEFT'))).toEqual([]);
    }
  },
);
