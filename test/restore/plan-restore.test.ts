import { expect, test } from 'vitest';
import { planRestore, restoreVm } from '../../src/restore/index.ts';
import { addSr, type BackedUp, everything, lose, MIB, startBackedUp } from './support.ts';

const plan = ({ host, repository, first }: BackedUp, options: Partial<Parameters<typeof planRestore>[2]> = {}) =>
  planRestore(host, repository, { point: first.point, ...options });

test('is plain data, changes nothing, and names where everything goes', async () => {
  await using pool = await startBackedUp();
  const before = await everything(pool);
  const made = await plan(pool);
  expect(await everything(pool)).toEqual(before);
  expect(JSON.parse(JSON.stringify(made))).toEqual(JSON.parse(JSON.stringify(made)));
  expect(made).toMatchObject({ identity: 'new', conflicts: [], point: pool.first.point });
  expect(made.name).toMatch(/^web \(restored \d{4}-/);
  expect(made.disks.map(({ action, transport, srName }) => [action, transport, srName])).toEqual([
    ['restore', 'vhd', 'Local storage'],
    ['restore', 'vhd', 'Local storage'],
  ]);
  expect(made.nics.map(({ device, macPolicy, reason }) => [device, macPolicy, reason])).toEqual([
    ['0', 'generate', 'the same network'],
    ['1', 'generate', 'the same network'],
  ]);
});

test('the original identity only where nobody has it, unless a new one is asked for', async () => {
  await using pool = await startBackedUp();
  await lose(pool);
  expect(await plan(pool)).toMatchObject({ identity: 'original', name: 'web' });
  expect(await plan(pool, { identity: 'new' })).toMatchObject({ identity: 'new', identityReason: /asked/ });
});

test('SRs: for all by name, for single disks by device or uuid; unknown and ambiguous ones are conflicts', async () => {
  await using pool = await startBackedUp();
  const [first, second] = pool.vm.disks;
  addSr(pool, 'nfs', 'Twin');
  addSr(pool, 'nfs', 'Twin');
  addSr(pool, 'iscsi', 'Raw');
  const names = async (options: object) => (await plan(pool, options)).disks.map(({ srName }) => srName);
  expect(await names({ sr: 'Shared storage' })).toEqual(['Shared storage', 'Shared storage']);
  expect(await names({ sr: 'Shared storage', srByDisk: { '1': 'Raw' } })).toEqual(['Shared storage', 'Raw']);
  expect(await names({ srByDisk: { [first!.uuid]: 'Raw' } })).toEqual(['Raw', 'Local storage']);
  const raw = await plan(pool, { sr: 'Raw' });
  expect(raw.disks.map(({ transport }) => transport)).toEqual(['raw', 'raw']);
  expect((await plan(pool, { sr: 'Twin' })).conflicts.map(({ code }) => code)).toEqual(['SR_UNKNOWN', 'SR_UNKNOWN']);
  expect((await plan(pool, { srByDisk: { [second!.uuid]: 'Nowhere' } })).conflicts).toMatchObject([
    { code: 'SR_UNKNOWN', subject: second!.uuid },
  ]);
});

test('an SR that is gone: the default one, and without that a conflict', async () => {
  await using pool = await startBackedUp();
  const { world, refs } = pool.simulator;
  const shared = [...world.objects('SR')].find(([, { name_label }]) => name_label === 'Shared storage')![0];
  world.updateObject('SR', refs.defaultSr, { uuid: '99999999-0000-4000-8000-000000000000' });
  world.updateObject('pool', refs.pool, { default_SR: shared });
  expect((await plan(pool)).disks.map(({ srName }) => srName)).toEqual(['Shared storage', 'Shared storage']);
  world.updateObject('pool', refs.pool, { default_SR: 'OpaqueRef:NULL' });
  expect((await plan(pool)).conflicts.map(({ code }) => code)).toEqual(['NO_SR', 'NO_SR']);
});

test('thick storage must have room for all disks, empty ones included', async () => {
  await using pool = await startBackedUp({ backup: { exclude: ['1'] } });
  addSr(pool, 'lvm', 'Thick', { physical_size: 20 * MIB, physical_utilisation: 0 });
  expect((await plan(pool, { sr: 'Thick' })).conflicts).toEqual([]);
  expect((await plan(pool, { sr: 'Thick', excludedDisks: 'empty' })).conflicts).toMatchObject([
    { code: 'SR_TOO_SMALL' },
  ]);
});

test('disks: skipped by device or uuid, excluded ones skipped or empty, unknown ones a conflict', async () => {
  await using pool = await startBackedUp({ backup: { exclude: ['1'] } });
  const actions = async (options: object) => (await plan(pool, options)).disks.map(({ action }) => action);
  expect(await actions({})).toEqual(['restore', 'skip']);
  expect(await actions({ excludedDisks: 'empty' })).toEqual(['restore', 'empty']);
  expect(await actions({ skipDisks: ['0', pool.vm.disks[1]!.uuid], excludedDisks: 'empty' })).toEqual(['skip', 'skip']);
  expect((await plan(pool, { skipDisks: ['7'] })).conflicts).toMatchObject([{ code: 'DISK_UNKNOWN', subject: '7' }]);

  const restored = await restoreVm(pool.host, pool.repository, {
    point: pool.first.point,
    excludedDisks: 'empty',
    name: 'half',
  });
  const disks = await pool.host.listDisks(restored.vmRef);
  expect(disks.map(({ vbd, vdi }) => [vbd.userdevice, vdi.virtual_size])).toEqual([
    ['0', 8 * MIB],
    ['1', 16 * MIB],
  ]);
  const { host, repository, first } = pool;
  const less = await restoreVm(host, repository, { point: first.point, skipDisks: ['0'] });
  expect(await host.listDisks(less.vmRef)).toEqual([]);
});

test('networks: mapped by uuid or name, the same name, the default; else a conflict', async () => {
  await using pool = await startBackedUp();
  const { world, refs } = pool.simulator;
  const [first, second] = await pool.host.listNetworks();
  const nics = async (options: object) =>
    (await plan(pool, options)).nics.map(({ networkUuid, reason }) => [networkUuid, reason]);
  expect(await nics({ networks: { [first!.uuid]: second!.name } })).toEqual([
    [second!.uuid, 'as mapped'],
    [second!.uuid, 'as mapped'],
  ]);
  expect(await nics({ networks: { [first!.name]: second!.uuid } })).toEqual([
    [second!.uuid, 'as mapped'],
    [second!.uuid, 'as mapped'],
  ]);
  const wrong = await plan(pool, { networks: { [first!.uuid]: 'nowhere' }, defaultNetwork: second!.uuid });
  expect(wrong.conflicts.map(({ code }) => code)).toEqual(['NETWORK_UNKNOWN', 'NETWORK_UNKNOWN']); // a map is an order

  world.updateObject('network', refs.network, { uuid: '99999999-0000-4000-8000-000000000001' });
  expect((await nics({}))[0]).toEqual(['99999999-0000-4000-8000-000000000001', 'a network of the same name']);
  world.updateObject('network', refs.network, { name_label: 'renamed' });
  expect((await plan(pool)).conflicts.map(({ code }) => code)).toEqual(['NETWORK_UNKNOWN', 'NETWORK_UNKNOWN']);
  expect((await nics({ defaultNetwork: 'renamed' }))[0]?.[1]).toBe('the default that was given');
  const restored = await restoreVm(pool.host, pool.repository, { point: pool.first.point, defaultNetwork: 'renamed' });
  const { VIFs } = await pool.host.getRecord('VM', restored.vmRef);
  for (const ref of VIFs) expect((await pool.host.getRecord('VIF', ref)).network).toBe(refs.network);
});

test('an unknown point is NOT_FOUND', async () => {
  await using pool = await startBackedUp();
  const point = { ...pool.first.point, point: pool.first.point.point.replace(/^\d{4}/, '2001') };
  await expect(plan(pool, { point })).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test.each(['changed-blocks', 'image'] as const)(
  '%s: a virtual TPM on a pool that has none is a conflict, unless left out',
  async (strategy) => {
    await using from = await startBackedUp({ vm: { vtpm: 'AAAA', powerState: 'Suspended' }, backup: { strategy } });
    const { point } = from.first;
    const there = await planRestore(from.host, from.repository, { point });
    expect(there).toMatchObject({ vtpm: 'restore', conflicts: [] });
    expect(there.decisions).toContainEqual(expect.objectContaining({ topic: 'power', choice: 'halted' }));
    const restrictions = { ...from.simulator.world.getObject('pool', from.simulator.refs.pool).restrictions };
    from.simulator.world.updateObject('pool', from.simulator.refs.pool, {
      restrictions: { ...restrictions, restrict_vtpm: 'true' },
    });
    const plan = await planRestore(from.host, from.repository, { point });
    expect(plan.conflicts).toEqual([expect.objectContaining({ code: 'VTPM_UNSUPPORTED' })]);
    const { vmRef } = await restoreVm(from.host, from.repository, { point, vtpm: 'omit' });
    expect(await from.host.getRecord('VM', vmRef)).toMatchObject({ power_state: 'Halted', VTPMs: [] });
  },
);
