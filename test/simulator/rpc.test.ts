import { expect, test } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
import { connect } from './client.ts';

test('xen-api logs in, sees objects and their changes, and gets typed errors', async () => {
  await using simulator = await startSimulator();
  await using client = await connect(simulator);
  const { xapi } = client;
  const pool = await xapi.objectsFetched.then(() => xapi.pool);
  expect(pool.name_label).toBe('simulated pool');

  const changed = new Promise<string>((resolve) => {
    xapi.objects.on('update', (updated) => {
      for (const object of Object.values(updated)) {
        if (object?.$type === 'pool' && object.name_label !== 'simulated pool') resolve(object.name_label);
      }
    });
  });
  await xapi.call('pool.set_name_label', pool.$ref, 'renamed');
  expect(await changed).toBe('renamed');

  await expect(xapi.call('VM.get_record', 'OpaqueRef:nothing')).rejects.toMatchObject({
    code: 'HANDLE_INVALID',
    params: ['VM', 'OpaqueRef:nothing'],
  });
});
