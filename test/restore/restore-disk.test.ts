import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { restoreDisk } from '../../src/restore/index.ts';
import { addSr, type BackedUp, everything, MIB, startBackedUp } from './support.ts';

type Options = Partial<Parameters<typeof restoreDisk>[2]> & Pick<Parameters<typeof restoreDisk>[2], 'target'>;

const restore = ({ host, repository, first, vm }: BackedUp, options: Options) =>
  restoreDisk(host, repository, { point: first.point, vdiUuid: vm.disks[0]!.uuid, ...options });

async function localSr({ host }: BackedUp): Promise<string> {
  return (await host.listRecords('SR')).find(({ name_label }) => name_label === 'Local storage')!.uuid;
}

test('into a new disk, under a name, on any storage', async () => {
  await using pool = await startBackedUp();
  const hash = await pool.simulator.hashDisk(pool.vm.disks[0]!.uuid);
  const raw = await pool.host.getRecord('SR', addSr(pool, 'iscsi', 'Raw'));
  for (const sr of [await localSr(pool), raw.uuid]) {
    const sent: number[] = [];
    const target = { sr, name: 'rescued' };
    const uuid = await restore(pool, { target, onSent: (bytes, total) => sent.push(bytes / total) });
    expect(await pool.host.getRecord('VDI', uuid)).toMatchObject({ name_label: 'rescued', virtual_size: 8 * MIB });
    expect(await pool.simulator.hashDisk(uuid)).toBe(hash);
    expect(sent.at(-1)).toBe(1);
  }
});

test('over an existing disk: a larger one is filled with zeros, a smaller one refused', async () => {
  await using pool = await startBackedUp();
  const other = await pool.simulator.createVm({
    powerState: 'Halted',
    disks: [{ size: 12 * MIB }, { size: 4 * MIB }],
  });
  await pool.simulator.writeDisk(other.uuid, '0', 0, randomBytes(12 * MIB));
  const [larger, smaller] = other.disks;
  expect(await restore(pool, { target: { vdi: larger!.uuid } })).toBe(larger!.uuid);
  const wanted = await pool.simulator.createVm({ powerState: 'Halted', disks: [{ size: 12 * MIB }] });
  await restore(pool, { target: { vdi: wanted.disks[0]!.uuid } }); // onto zeros
  expect(await pool.simulator.hashDisk(larger!.uuid)).toBe(await pool.simulator.hashDisk(wanted.disks[0]!.uuid));

  const before = await pool.simulator.hashDisk(smaller!.uuid);
  await expect(restore(pool, { target: { vdi: smaller!.uuid } })).rejects.toMatchObject({ code: 'PLAN_CONFLICT' });
  expect(await pool.simulator.hashDisk(smaller!.uuid)).toBe(before);
});

test('a failure or an abort leaves no new disk, and never removes an existing one', async () => {
  await using pool = await startBackedUp();
  const sr = await localSr(pool);
  const other = await pool.simulator.createVm({ powerState: 'Halted', disks: [{ size: 8 * MIB }] });
  const before = await everything(pool);
  pool.simulator.fault('import-error', { after: MIB, times: 2 });
  await expect(restore(pool, { target: { sr } })).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
  await expect(restore(pool, { target: { vdi: other.disks[0]!.uuid } })).rejects.toMatchObject({
    code: 'TRANSFER_FAILED',
  });
  const stop = new AbortController();
  const reason = new Error('enough');
  const onSent = () => stop.abort(reason);
  await expect(restore(pool, { target: { sr }, signal: stop.signal, onSent })).rejects.toBe(reason);
  await expect(restore(pool, { target: { sr }, signal: stop.signal })).rejects.toBe(reason);
  expect(await everything(pool)).toEqual(before);
});

test('a new disk that cannot be removed again is told, with what went wrong first', async () => {
  await using pool = await startBackedUp();
  pool.simulator.fault('import-error', { after: MIB });
  pool.simulator.fault('call-error', { method: 'VDI.destroy', code: 'INTERNAL_ERROR', params: ['oops'] });
  await expect(restore(pool, { target: { sr: await localSr(pool) } })).rejects.toMatchObject({
    code: 'CLEAN_UP_INCOMPLETE',
    message: expect.stringContaining('oops'),
    cause: { code: 'TRANSFER_FAILED' },
  });
});
