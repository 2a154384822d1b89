import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { restoreVm } from '../../src/restore/index.ts';
import { MIB, snapshotsOn, startRoad, storedHashes } from './support/road.ts';
import { group, row, WITH_TRACKING } from './support/row.ts';

group('General', () => {
  row(
    'S0',
    'the same calls work against every profile',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      for (const type of ['full', 'incr']) {
        const { point, manifest } = await road.backup({ quiesce: 'prefer' });
        expect(manifest.type).toBe(type);
        expect(await storedHashes(road, point)).toEqual(await road.hashes());
        expect(await snapshotsOn(road)).toEqual([manifest.snapshot.uuid]);
        const restored = await restoreVm(road.host, road.repository, { point });
        for (const [source, made] of Object.entries(restored.disks)) {
          expect(await road.simulator.hashDisk(made)).toBe((await road.hashes())[source]);
        }
        await road.simulator.writeDisk(road.vm.uuid, '1', 5 * MIB, randomBytes(70_000));
      }
      const { manifest } = await road.backup({ exclude: ['1'], keepForIncremental: false });
      expect(manifest.disks.map(({ mode }) => mode)).toEqual(['delta', 'excluded']);
      expect(await snapshotsOn(road)).toEqual([]);
    },
    { on: WITH_TRACKING },
  );
});
