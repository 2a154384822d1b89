import { expect, test } from 'vitest';
import { connectHost } from '../../src/host/index.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { connect } from '../simulator/client.ts';
import { startPool } from '../support/pool.ts';

const MIB = 1024 * 1024;

/** Of this machine, and nothing listens there. */
const NOBODY = '127.0.0.3';

test('without a disk the standard port is tried, with the certificate that the pool tells', async () => {
  await using pool = await startPool();
  const { simulator, host } = pool;
  simulator.log.clear();
  const trying = host.tryNbd({ host: simulator.refs.host, address: NOBODY });
  await expect(trying).rejects.toMatchObject({ code: 'NBD_CONNECT_FAILED', server: `${NOBODY}:10809` });
  expect(simulator.log.entries.map(({ method }) => method)).toContain('host.get_server_certificate');
});

test('with a disk that is not to be read, TLS is proven and the disk left alone', async () => {
  await using pool = await startPool();
  const { simulator, host } = pool;
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }] }); // in use: opening it would fail
  const vdi = vm.disks[0]!.uuid;
  const target = { host: simulator.refs.host, address: '127.0.0.1', vdi };
  expect(await host.tryNbd(target)).toEqual({ port: expect.any(Number), bytesRead: 0 });
  expect(simulator.log.entries.some(({ kind }) => kind === 'nbd')).toBe(false);
  await expect(host.tryNbd({ ...target, read: true })).rejects.toMatchObject({ code: 'NBD_EXPORT_CLOSED' });
  await expect(host.tryNbd({ ...target, address: NOBODY })).rejects.toMatchObject({
    code: 'NBD_UNAVAILABLE',
    message: expect.stringContaining('does not offer it there'),
  });
});

test('with an idle disk its first block is read, once, and the host has let go of it', async () => {
  await using pool = await startPool();
  const { simulator, host } = pool;
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  const [{ vdi } = { vdi: '' }] = vm.disks;
  const target = { host: simulator.refs.host, address: '127.0.0.1', vdi, read: true };
  expect(await host.tryNbd(target)).toMatchObject({ bytesRead: 65_536 });
  await host.callAsync('VDI.destroy', [vdi]); // VDI_IN_USE if it were still attached
  expect(simulator.log.entries.filter(({ kind, method }) => kind === 'nbd' && method === 'READ')).toHaveLength(1);
});

test('a server with another certificate than the pool tells is not believed', async () => {
  await using pool = await startPool();
  await using other = await startSimulator();
  const { simulator } = pool;
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  await using connection = await connect(simulator);
  const { xapi } = connection;
  const client = {
    status: 'connected',
    sessionId: xapi.sessionId,
    connect: () => xapi.connect(),
    disconnect: () => xapi.disconnect(),
    watchTask: () => Promise.reject(new Error('not watched')),
    async call(method: string, ...args: unknown[]) {
      const answer = await xapi.call(method, ...args);
      if (method !== 'VDI.get_nbd_info') return answer;
      return (answer as object[]).map((way) => ({ ...way, cert: other.certificate }));
    },
  };
  const { url, certificate } = simulator;
  await using host = await connectHost({ url, client, tls: { certificate } });
  const target = { host: simulator.refs.host, address: '127.0.0.1', vdi: vm.disks[0]!.uuid };
  for (const read of [false, true]) {
    await expect(host.tryNbd({ ...target, read })).rejects.toMatchObject({ code: 'NBD_CERTIFICATE_MISMATCH' });
  }
  expect(simulator.log.entries.some(({ kind }) => kind === 'nbd')).toBe(false);
});

test('an abort, and a connection that was closed', async () => {
  await using pool = await startPool();
  const target = { host: pool.simulator.refs.host, address: '127.0.0.1' };
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(pool.host.tryNbd(target, { signal })).rejects.toThrow('enough');
  await pool.host.close();
  await expect(pool.host.tryNbd(target)).rejects.toMatchObject({ xapiCode: 'SESSION_INVALID' });
});
