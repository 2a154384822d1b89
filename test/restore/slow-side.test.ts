import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { type DiskReport, systemStopwatch } from '../../src/core/index.ts';
import type { Host } from '../../src/host/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import { directoryStore, openRepository, type Store } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { type ManualStopwatch, manualStopwatch } from '../support/manual-stopwatch.ts';
import { MIB, startBackedUp } from './support.ts';

let stopwatch: ManualStopwatch;
beforeEach(() => {
  stopwatch = manualStopwatch();
  vi.spyOn(systemStopwatch, 'now').mockImplementation(stopwatch.now);
  vi.spyOn(systemStopwatch, 'busy').mockImplementation(stopwatch.busy);
});
afterEach(() => vi.restoreAllMocks());

/** Takes as long for each piece of data, and for its verdict. */
function slowHost(host: Host, ms: number): Host {
  async function* slowly(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of chunks) {
      stopwatch.wait(ms);
      yield chunk;
    }
  }
  const { importDisk, importVm } = host;
  vi.spyOn(host, 'importDisk').mockImplementation(async (ref, { length, chunks }, options) => {
    await importDisk.call(host, ref, { length, chunks: slowly(chunks) }, options);
    stopwatch.wait(ms);
  });
  vi.spyOn(host, 'importVm').mockImplementation(async ({ length, chunks }, options) => {
    const refs = await importVm.call(host, { length, chunks: slowly(chunks) }, options);
    stopwatch.wait(ms);
    return refs;
  });
  return host;
}

/** Each read takes as long. */
function slowStore(store: Store, ms: number): Store {
  const { open } = store;
  vi.spyOn(store, 'open').mockImplementation(async (...args) => {
    const source = await open.apply(store, args);
    return {
      ...source,
      async readInto(...read) {
        await source.readInto(...read);
        stopwatch.wait(ms);
      },
    };
  });
  return store;
}

const ONE_DISK = { disks: [{ size: 8 * MIB }] };

test.each([
  ['a disk by itself', 'changed-blocks', ['vhd']],
  ['an archive, and a delta onto its disk', 'image', ['xva', 'vhd']],
] as const)('%s: names a slow host, and a slow store', async (_, strategy, transports) => {
  await using pool = await startBackedUp({ vm: ONE_DISK, backup: { strategy } });
  const { host, folder, vm, simulator, repository } = pool;
  // In the block that has data already: of one block no read goes ahead, which would be for the time of another.
  await simulator.writeDisk(vm.uuid, '0', 3.5 * MIB, randomBytes(65536));
  const { point } = await backupVm(host, repository, { vm: vm.uuid, strategy });

  const slow = await openRepository(slowStore(await directoryStore(folder), 1000));
  const ofStore = (await restoreVm(host, slow, { point })).report;
  expect(ofStore.disks.map(({ transport }) => transport)).toEqual(transports);
  const { time } = ofStore.disks.at(-1)!; // an archive is read ahead
  expect(time).toMatchObject({ hostMs: 0, hashMs: 0 });
  expect(time.storeMs).toBeGreaterThanOrEqual(1000);

  const ofHost = (await restoreVm(slowHost(host, 1000), repository, { point })).report;
  expect(ofHost.transfer).toMatchObject({ slowSide: 'host', share: 1, storeMs: 0, hashMs: 0 });
  for (const { time } of ofHost.disks) expect(time.hostMs).toBeGreaterThanOrEqual(2000);
  const moved = (disks: readonly DiskReport[]) => disks.reduce((sum, { bytesMoved }) => sum + bytesMoved, 0);
  expect(ofHost.transfer.bytes).toBe(moved(ofHost.disks));
  expect(JSON.parse(JSON.stringify(ofHost))).toEqual(ofHost);
});

test('a restore that fails in the middle tells what it measured until then', async () => {
  await using pool = await startBackedUp({ vm: ONE_DISK });
  pool.simulator.fault('import-error', { after: 1024 });
  const { point } = pool.first;
  const { report } = await failing(restoreVm(slowHost(pool.host, 1000), pool.repository, { point }));
  expect(report).toMatchObject({ outcome: 'failed', disks: [], transfer: { slowSide: 'host', share: 1 } });
  expect(report.transfer.hostMs).toBeGreaterThanOrEqual(1000);
});
