import { expect, test } from 'vitest';
import { disableChangedBlockTracking, enableChangedBlockTracking } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { MIB, twoDiskVm } from './support.ts';

const isTracked = async ({ host }: Pool, uuid: string) => (await host.getRecord('VDI', uuid)).cbt_enabled;

test('on and off again, each disk once', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await twoDiskVm(pool);
  const uuids = vm.disks.map(({ uuid }) => uuid);
  const [first] = uuids;
  const states = (results: readonly { state: string }[]) => results.map(({ state }) => state);
  expect(await enableChangedBlockTracking(pool.host, [first!])).toEqual([{ vdiUuid: first, state: 'changed' }]);
  expect(states(await enableChangedBlockTracking(pool.host, uuids))).toEqual(['already', 'changed']);
  for (const uuid of uuids) expect(await isTracked(pool, uuid)).toBe(true);
  expect(states(await disableChangedBlockTracking(pool.host, uuids))).toEqual(['changed', 'changed']);
  expect(states(await disableChangedBlockTracking(pool.host, uuids))).toEqual(['already', 'already']);
  for (const uuid of uuids) expect(await isTracked(pool, uuid)).toBe(false);
});

test('a disk that the host refuses does not stop the others', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await pool.simulator.createVm({
    disks: [{ size: 4 * MIB, record: { on_boot: 'reset' } }, { size: 4 * MIB }],
  });
  const results = await enableChangedBlockTracking(
    pool.host,
    vm.disks.map(({ uuid }) => uuid),
  );
  expect(results).toMatchObject([
    { state: 'refused', xapiCode: 'VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION', reason: expect.any(String) },
    { state: 'changed' },
  ]);
});

test('a host before 7.3 refuses, a licence, too', async () => {
  await using old = await startPool({ profile: 'xenserver-7.2', nbd: false });
  const vm = await twoDiskVm(old);
  expect(await enableChangedBlockTracking(old.host, [vm.disks[0]!.uuid])).toMatchObject([{ state: 'refused' }]);
  expect(await disableChangedBlockTracking(old.host, [vm.disks[0]!.uuid])).toMatchObject([{ state: 'already' }]);

  await using pool = await startPool({ nbd: false });
  const other = await twoDiskVm(pool);
  pool.simulator.fault('call-error', { method: 'VDI.enable_cbt', code: 'LICENCE_RESTRICTION', params: ['CBT'] });
  expect(await enableChangedBlockTracking(pool.host, [other.disks[0]!.uuid])).toMatchObject([
    { state: 'refused', xapiCode: 'LICENCE_RESTRICTION' },
  ]);
});

test('a failing host is no refusal', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await twoDiskVm(pool);
  pool.simulator.fault('call-error', { method: 'VDI.enable_cbt', code: 'INTERNAL_ERROR', params: ['oops'] });
  await expect(enableChangedBlockTracking(pool.host, [vm.disks[0]!.uuid])).rejects.toMatchObject({
    xapiCode: 'INTERNAL_ERROR',
  });
  await expect(enableChangedBlockTracking(pool.host, ['nothing'])).rejects.toMatchObject({ xapiCode: 'UUID_INVALID' });
});
