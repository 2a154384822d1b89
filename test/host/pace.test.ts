import { expect, test } from 'vitest';
import type { Clock } from '../../src/core/index.ts';
import { connectHost } from '../../src/host/index.ts';
import { hostGates } from '../../src/host/limits.ts';
import { createPace } from '../../src/host/pace.ts';
import { startSimulator } from '../../src/simulator/index.ts';

const MIB = 1024 * 1024;

/** A clock whose sleeps take no time of ours. */
function quickClock(): Clock & { readonly slept: () => number } {
  let now = 1_000_000;
  let slept = 0;
  return {
    now: () => now,
    slept: () => slept,
    async sleep(ms, { signal } = {}) {
      signal?.throwIfAborted();
      now += ms;
      slept += ms;
    },
  };
}

test('bytes are held to the rate, after a short burst; a rest is not saved up', async () => {
  const clock = quickClock();
  const pace = createPace();
  await pace.pass(1000 * MIB, clock); // no limit
  expect(clock.slept()).toBe(0);
  pace.bytesPerSecond = MIB;
  await pace.pass(MIB / 10, clock);
  expect(clock.slept()).toBe(0);
  for (let i = 0; i < 10; i++) await pace.pass(MIB / 10, clock);
  expect(clock.slept()).toBeCloseTo(1000, 0);
  await clock.sleep(60_000);
  const before = clock.slept();
  await pace.pass(MIB, clock);
  expect(clock.slept() - before).toBeCloseTo(900, 0);
  const stop = AbortSignal.abort(new Error('enough'));
  await expect(pace.pass(MIB, clock, { signal: stop })).rejects.toThrow('enough');
});

test('exports, imports and NBD of one host share its rate; a rate must be one', async () => {
  await using simulator = await startSimulator();
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  const { port } = new URL(simulator.url);
  const clock = quickClock();
  const { username, password, certificate } = simulator;
  const connect = (bytesPerSecond: number) =>
    connectHost({
      url: 'https://paced.example',
      username,
      password,
      tls: { certificate },
      resolveAddress: () => ({ host: '127.0.0.1', port: Number(port) }),
      limits: { bytesPerSecond },
      clock,
    });
  await using host = await connect(MIB);
  const before = clock.slept();
  await using transfer = await host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' });
  let bytes = 0;
  for await (const chunk of transfer.chunks) bytes += chunk.byteLength;
  expect(bytes).toBe(4 * MIB);
  const slept = clock.slept() - before;
  expect(slept).toBeGreaterThan(3800);
  await expect(connect(0)).rejects.toThrow(RangeError);
});

test('snapshots wait for one another at the limit', async () => {
  await using simulator = await startSimulator();
  const vms = await Promise.all([1, 2, 3].map(() => simulator.createVm({ disks: [{ size: 4 * MIB }] })));
  const { username, password, certificate, url } = simulator;
  const { port } = new URL(url);
  const resolveAddress = () => ({ host: '127.0.0.1', port: Number(port) });
  const limits = { snapshots: 1 };
  const options = { url: 'https://snaps.example', username, password, tls: { certificate }, resolveAddress, limits };
  await using host = await connectHost(options);
  const { snapshots } = hostGates('snaps.example');
  const release = await snapshots.enter();
  const all = Promise.all(vms.map(({ ref }) => host.callAsync('VM.snapshot', [ref, 'one'])));
  await host.listVms();
  expect(simulator.log.names()).not.toContain('Async.VM.snapshot');
  release();
  expect(await all).toHaveLength(3);
});
