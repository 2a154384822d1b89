import { expect, test } from 'vitest';
import { restoreVm, verifyRestored } from '../../src/restore/index.ts';
import { type BackedUp, MIB, startBackedUp } from './support.ts';

async function restored(pool: BackedUp) {
  const { disks, vmUuid } = await restoreVm(pool.host, pool.repository, { point: pool.first.point });
  const verify = (options: object = {}) =>
    verifyRestored(pool.host, pool.repository, { point: pool.first.point, disks, ...options });
  return { disks, vmUuid, verify };
}

test('equal to the last byte, and a difference is found at its offset', async () => {
  await using pool = await startBackedUp();
  const { disks, vmUuid, verify } = await restored(pool);
  const read: Record<string, number> = {};
  const results = await verify({ onRead: (uuid: string, bytes: number) => Object.assign(read, { [uuid]: bytes }) });
  const [first, second] = pool.vm.disks;
  expect(results).toEqual([
    { vdiUuid: first!.uuid, restoredUuid: disks[first!.uuid], equal: true, firstDifference: undefined },
    { vdiUuid: second!.uuid, restoredUuid: disks[second!.uuid], equal: true, firstDifference: undefined },
  ]);
  expect(read).toEqual({ [first!.uuid]: 8 * MIB, [second!.uuid]: 16 * MIB });

  for (const at of [16 * MIB - 1, 5 * MIB + 17, 0]) {
    await pool.simulator.writeDisk(vmUuid, '1', at, Uint8Array.of(1));
    const [same, other] = await verify();
    expect(same?.equal).toBe(true);
    expect(other).toMatchObject({ equal: false, firstDifference: at });
  }
});

test('what lies behind the end of the original must be zeros', async () => {
  await using pool = await startBackedUp();
  const { disks, vmUuid, verify } = await restored(pool);
  const { ref } = await pool.host.getRecord('VDI', disks[pool.vm.disks[0]!.uuid]!);
  await pool.host.callAsync('VDI.resize', [ref, 10 * MIB]);
  expect((await verify())[0]?.equal).toBe(true);
  await pool.simulator.writeDisk(vmUuid, '0', 9 * MIB, Uint8Array.of(1));
  expect((await verify())[0]).toMatchObject({ equal: false, firstDifference: 9 * MIB });
});

test('a host that fails is an error, never a verdict', async () => {
  await using pool = await startBackedUp();
  const { verify } = await restored(pool);
  pool.simulator.fault('export-cut', { after: MIB });
  await expect(verify()).rejects.toMatchObject({ code: expect.stringMatching(/^TRANSFER_/) });
  pool.simulator.fault('export-cut', { after: MIB, taskSucceeds: true });
  await expect(verify()).rejects.toMatchObject({ code: expect.stringMatching(/^TRANSFER_/) });
  const stop = new AbortController();
  const reason = new Error('enough');
  await expect(verify({ signal: stop.signal, onRead: () => stop.abort(reason) })).rejects.toBe(reason);
  expect((await pool.host.listRecords('task')).map(({ name_label }) => name_label)).toEqual([]);
});

test('a disk that came back empty must be zeros', async () => {
  await using pool = await startBackedUp({ backup: { exclude: ['1'] } });
  const { host, repository, simulator, first } = pool;
  const { point } = first;
  const { disks, vmUuid } = await restoreVm(host, repository, { point, excludedDisks: 'empty' });
  expect((await verifyRestored(host, repository, { point, disks })).map(({ equal }) => equal)).toEqual([true, true]);
  await simulator.writeDisk(vmUuid, '1', 4 * MIB, Uint8Array.of(1));
  const [, empty] = await verifyRestored(host, repository, { point, disks });
  expect(empty).toMatchObject({ equal: false, firstDifference: 4 * MIB });
});
