import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { backupVm, type PlanBackupOptions } from '../../src/backup/index.ts';
import { type DiskReport, systemStopwatch } from '../../src/core/index.ts';
import type { Host } from '../../src/host/index.ts';
import { directoryStore, openRepository, type Store } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { type ManualStopwatch, manualStopwatch } from '../support/manual-stopwatch.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { fullAfter, MIB } from './support.ts';

/** Beside which the time of hashing, which is real, is nothing. */
const LONG = 1e6;

let stopwatch: ManualStopwatch;
beforeEach(() => {
  stopwatch = manualStopwatch();
  vi.spyOn(systemStopwatch, 'now').mockImplementation(stopwatch.now);
  vi.spyOn(systemStopwatch, 'busy').mockImplementation(stopwatch.busy);
});
afterEach(() => vi.restoreAllMocks());

/** One disk: of several, each would count the time of the others, which stands still in truth while they are read. */
async function oneDisk({ simulator }: Pool) {
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 16 * MIB }] });
  await simulator.writeDisk(vm.uuid, '0', 512, randomBytes(5 * MIB));
  return vm;
}

/** Each piece of data takes as long to come. */
function slowHost(host: Host, ms: number): Host {
  async function* slowly<T>(chunks: AsyncIterable<T>): AsyncGenerator<T, void> {
    for await (const chunk of chunks) {
      stopwatch.wait(ms);
      yield chunk;
    }
  }
  const { exportDisk, exportVm, openNbd } = host;
  vi.spyOn(host, 'exportDisk').mockImplementation(async (...args) => {
    const running = await exportDisk.apply(host, args);
    return { ...running, chunks: slowly(running.chunks) };
  });
  vi.spyOn(host, 'exportVm').mockImplementation(async (...args) => {
    const running = await exportVm.apply(host, args);
    return { ...running, chunks: slowly(running.chunks) };
  });
  vi.spyOn(host, 'openNbd').mockImplementation(async (...args) => {
    const disk = await openNbd.apply(host, args);
    return {
      size: disk.size,
      extents: (options) => disk.extents(options),
      async readInto(...read) {
        await disk.readInto(...read);
        stopwatch.wait(ms);
      },
      close: () => disk.close(),
      [Symbol.asyncDispose]: () => disk.close(),
    };
  });
  return host;
}

/** Each chunk takes as long to be written, and each file to be published. */
function slowStore(store: Store, ms: number): Store {
  async function* slowly(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of chunks) {
      yield chunk;
      stopwatch.wait(ms);
    }
  }
  const { write, stage } = store;
  vi.spyOn(store, 'write').mockImplementation((name, from, options) => {
    if (from instanceof Uint8Array) return write.call(store, name, from, options);
    const chunks = slowly('chunks' in from ? from.chunks : from);
    return write.call(store, name, 'chunks' in from ? { length: from.length, chunks } : chunks, options);
  });
  vi.spyOn(store, 'stage').mockImplementation(async (options) => {
    const { path, publish, discard } = await stage.call(store, options);
    return {
      path,
      discard,
      publish(...args) {
        stopwatch.wait(ms);
        return publish(...args);
      },
    };
  });
  return store;
}

interface Slowness {
  readonly hostMs?: number;
  readonly storeMs?: number;
}

async function backUp(pool: Pool, vm: string, options: Omit<PlanBackupOptions, 'vm'>, slow: Slowness) {
  const store = slowStore(await directoryStore(pool.folder), slow.storeMs ?? 0);
  const repository = await openRepository(store);
  const { report } = await backupVm(slowHost(pool.host, slow.hostMs ?? 0), repository, { ...options, vm });
  vi.mocked(pool.host.exportDisk).mockRestore();
  vi.mocked(pool.host.exportVm).mockRestore();
  vi.mocked(pool.host.openNbd).mockRestore();
  expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  return report;
}

const WAYS: readonly [string, Omit<PlanBackupOptions, 'vm'>, string][] = [
  ['a full by the raw export', { mode: 'full', transport: 'raw' }, 'raw'],
  ['a full by the VHD export', { mode: 'full', transport: 'vhd' }, 'vhd'],
  ['a delta by NBD', {}, 'nbd'],
  ['an image', { strategy: 'image', mode: 'full' }, 'xva'],
  ['the differences from an image', { strategy: 'image' }, 'vhd'],
];

describe.each(WAYS)('%s', (_, options, transport) => {
  test('names a slow host, and a slow store', async () => {
    await using pool = await startPool();
    const vm = await oneDisk(pool);
    const { strategy } = options;
    if (options.mode !== 'full') await backupVm(pool.host, pool.repository, { strategy, vm: vm.uuid });
    for (const [slowSide, slow] of [
      ['host', { hostMs: LONG }],
      ['store', { storeMs: LONG }],
    ] as const) {
      await pool.simulator.writeDisk(vm.uuid, '0', 4 * MIB, randomBytes(65536)); // of a delta one read: none overlaps
      const { disks, transfer } = await backUp(pool, vm.uuid, options, slow);
      expect(transfer).toMatchObject({ slowSide, share: 1 });
      expect(disks.map((disk) => disk.transport)).toEqual([transport]);
      const [{ time, bytesMoved }] = disks as [DiskReport];
      expect(time[`${slowSide}Ms`]).toBeGreaterThan(0.9 * LONG);
      expect(transfer).toMatchObject(time);
      if (transport === 'xva') expect(transfer.bytes).toBeGreaterThan(bytesMoved);
      else expect(transfer.bytes).toBe(bytesMoved);
    }
  });
});

test('a run that fails in the middle tells what it measured until then', async () => {
  await using pool = await startPool();
  const vm = await oneDisk(pool);
  const repository = await openRepository(fullAfter(await directoryStore(pool.folder), 3 * MIB));
  const host = slowHost(pool.host, LONG);
  const { report } = await failing(backupVm(host, repository, { vm: vm.uuid, transport: 'vhd' }));
  expect(report).toMatchObject({ outcome: 'failed', transfer: { slowSide: 'host', share: 1 } });
  expect(report.transfer.bytes).toBeGreaterThan(2 * MIB);
  expect(JSON.parse(JSON.stringify(report)).transfer).toEqual(report.transfer);
});

test('a run that fails before it moves anything names nobody', async () => {
  await using pool = await startPool();
  const vm = await oneDisk(pool);
  pool.simulator.fault('call-error', { method: 'VM.snapshot', code: 'SR_FULL' });
  const { report } = await failing(backupVm(pool.host, pool.repository, { vm: vm.uuid }));
  expect(report.transfer).toEqual({ bytes: 0, hostMs: 0, hashMs: 0, storeMs: 0, slowSide: 'none', share: 0 });
});
