import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { chooseUnchanged, compareUnchanged } from '../../src/backup/truth-check.ts';
import { ChangedBlocks } from '../../src/cbt/index.ts';
import { hashDisk, memoryDisk } from '../../src/disk/index.ts';
import { failing } from '../support/failing.ts';
import { startPool } from '../support/pool.ts';
import { MIB, smallVm } from './support.ts';

const BLOCK = 65_536;

function changedBlocks(marked: readonly number[], diskSize: number): ChangedBlocks {
  const bits = Buffer.alloc(Math.ceil(Math.ceil(diskSize / BLOCK) / 8));
  for (const index of marked) bits[index >> 3]! |= 0x80 >> (index & 7);
  return ChangedBlocks.fromBase64(bits.toString('base64'), { diskSize });
}

test('the sample: as many as asked for or as there are, none of them marked, none twice', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }).chain((blocks) =>
        fc.record({
          blocks: fc.constant(blocks),
          marked: fc.uniqueArray(fc.integer({ min: 0, max: blocks - 1 })),
          count: fc.integer({ min: 0, max: 400 }),
        }),
      ),
      ({ blocks, marked, count }) => {
        const chosen = chooseUnchanged(changedBlocks(marked, blocks * BLOCK - 512), count);
        expect(chosen).toHaveLength(Math.min(count, blocks - marked.length));
        expect(new Set(chosen).size).toBe(chosen.length);
        expect(chosen.filter((index) => marked.includes(index) || index >= blocks)).toEqual([]);
      },
    ),
  );
});

test('a difference is found at its block; a base that was smaller counts as zeros', async () => {
  const content = randomBytes(3 * BLOCK + 512);
  const grown = Buffer.concat([content, Buffer.alloc(2 * BLOCK)]);
  const none = changedBlocks([], grown.byteLength);
  const same = await compareUnchanged(memoryDisk(grown), memoryDisk(content), none, 100);
  expect(same).toMatchObject({ compared: 6, unchanged: 6, confidence: expect.stringContaining('all 6') as string });
  const some = await compareUnchanged(memoryDisk(grown), memoryDisk(content), none, 2);
  expect(some.confidence).toMatch(/^2 of 6 unchanged blocks .* 95 % sure that less than 78 % are not$/);
  grown[5 * BLOCK] = 1;
  await expect(compareUnchanged(memoryDisk(grown), memoryDisk(content), none, 100)).rejects.toMatchObject({
    code: 'CBT_UNTRUSTED',
    facts: { offset: 5 * BLOCK },
  });
});

test('tracking that lies makes the disk a full, or fails where the plan says so', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const options = { vm: vm.uuid, sampleUnchanged: 100_000 };
  await backupVm(pool.host, pool.repository, options);
  await pool.simulator.writeDisk(vm.uuid, '0', 4 * MIB, randomBytes(MIB));
  const lie = () => pool.simulator.fault('bitmap-lies', { blocks: 3, times: 2 });
  const disarm = lie();
  const refused = await failing(backupVm(pool.host, pool.repository, { ...options, onFallback: 'fail' }));
  const reason = expect.stringContaining('said to be unchanged') as string;
  expect(refused).toMatchObject({ code: 'FALLBACK_REFUSED', facts: { reason } });
  disarm();
  lie();
  const { manifest, point } = await backupVm(pool.host, pool.repository, options);
  expect(manifest.disks.map(({ mode }) => mode)).toEqual(['full', 'delta']);
  expect(manifest.disks[0]!.reason).toMatch(/said to be unchanged/);
  await using disk = await pool.repository.openDisk(point, vm.disks[0]!.uuid);
  expect(await hashDisk(disk)).toBe(await pool.simulator.hashDisk(vm.disks[0]!.uuid));
});

test('tracking that tells the truth passes, and the manifest says how sure that makes us', async () => {
  await using pool = await startPool();
  const vm = await smallVm(pool);
  const options = { vm: vm.uuid, sampleUnchanged: 20 };
  await backupVm(pool.host, pool.repository, options);
  await pool.simulator.writeDisk(vm.uuid, '0', 4 * MIB, randomBytes(MIB));
  const { manifest } = await backupVm(pool.host, pool.repository, options);
  const checks = manifest.decisions.filter(({ topic }) => topic === 'truth-check');
  expect(checks).toHaveLength(2);
  expect(checks[0]).toMatchObject({
    choice: 'passed',
    reason: expect.stringMatching(/^20 of \d+ .* 95 % sure/) as string,
  });
  expect(manifest.disks[0]!.bytesMoved).toBe(MIB + 20 * BLOCK);
  await expect(backupVm(pool.host, pool.repository, { ...options, sampleUnchanged: -1 })).rejects.toThrow(RangeError);
});
