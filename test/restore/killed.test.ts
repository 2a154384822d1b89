import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { RestoredObjects } from '../../src/restore/restored-objects.ts';
import { vdiToCreate } from '../../src/restore/vm-record.ts';
import { cleanUp, findLeftovers } from '../../src/snapshot/index.ts';
import { everything, MIB, startBackedUp } from './support.ts';

test('disks of a restore that was killed are found, unless a VM has them', async () => {
  await using pool = await startBackedUp();
  const before = await everything(pool);
  const runner = { hostname: hostname(), pid: 2 ** 30, thread: 0 };
  const run = { runId: '0123456789ab', runner, at: new Date(), vmUuid: pool.vm.uuid };
  const made = new RestoredObjects(pool.host, run);
  const sr = pool.simulator.refs.defaultSr;
  const loose = await made.disk('one', vdiToCreate({ name: 'one', size: 4 * MIB }, sr));
  const attached = await made.disk('two', vdiToCreate({ name: 'two', size: 4 * MIB }, sr));
  const vm = await pool.simulator.createVm({ name: 'half made', powerState: 'Halted' });
  pool.simulator.world.addObject('VBD', { VM: vm.ref, VDI: attached.ref, userdevice: '0', type: 'Disk' });
  const leftovers = await findLeftovers(pool.host, { vmUuid: pool.vm.uuid });
  const { uuid } = await pool.host.getRecord('VDI', loose.ref);
  expect(leftovers).toMatchObject([{ kind: 'disk', uuid, runId: run.runId }]);
  await cleanUp(pool.host, leftovers);
  expect(await pool.host.findRecord('VDI', attached.ref)).toBeDefined();
  await pool.host.callAsync('VM.destroy', [vm.ref]);
  await cleanUp(pool.host, await findLeftovers(pool.host));
  expect(await everything(pool)).toEqual(before);
});
