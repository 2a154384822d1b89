import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import {
  type BackupResult,
  backupVm,
  connectHost,
  directoryStore,
  type Host,
  openRepository,
  type ProgressListener,
  restoreVm,
} from 'xen-backup-sdk';
import { type Simulator, startSimulator } from 'xen-backup-sdk/simulator';
import { emptyFolder } from './empty-folder.ts';
import { recorder } from './record.ts';
import { backupRows, type DemoRow, restoreRows } from './summary.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** How the simulator calls its pool. */
const POOL_NAME = 'simulated pool';
/** A real file system at three times: what the guest has on its first disk at each backup. */
const STATES = ['first', 'second', 'third'] as const;

export interface SimulatedDemo {
  readonly folder: string;
  readonly onProgress: ProgressListener;
  readonly record: string | undefined;
  readonly signal: AbortSignal;
}

/** Three backups of a VM whose guest writes in between, then two restores, each compared with the source at its time. */
export async function demoOnSimulator({ folder, onProgress, record, signal }: SimulatedDemo): Promise<DemoRow[]> {
  await emptyFolder(folder, POOL_NAME);
  const transcript = await recorder(record);
  const work = await mkdtemp(join(tmpdir(), 'xen-backup-demo-'));
  const simulator = await startSimulator();
  const { url, username, password, certificate } = simulator;
  let host: Host | undefined;
  try {
    host = await connectHost({ url, username, password, tls: { certificate }, onExchange: transcript.onExchange });
    console.error('a simulated pool with one VM, a 64 MiB and a 2 GiB disk; its guest writes between the backups');
    await host.enableNbd('Pool-wide network associated with eth0');
    const repository = await openRepository(await directoryStore(folder));
    const vm = await makeVm(simulator, work);
    const rows: DemoRow[] = [];
    const points: { result: BackupResult; hashes: ReadonlyMap<string, string> }[] = [];
    for (const [index, state] of STATES.entries()) {
      signal.throwIfAborted();
      if (index > 0) await guestWrites(simulator, vm, work, state, index);
      const hashes = await hashDisks(simulator, vm);
      const result = await backupVm(host, repository, { vm: vm.uuid, onProgress, signal });
      points.push({ result, hashes });
      rows.push(...backupRows(result));
    }
    for (const { result, hashes } of [points[2]!, points[1]!]) {
      const restored = await restoreVm(host, repository, { point: result.point, onProgress, signal });
      const equal = new Map<string, boolean>();
      for (const [source, made] of Object.entries(restored.disks)) {
        equal.set(source, (await simulator.hashDisk(made)) === hashes.get(source));
      }
      rows.push(...restoreRows(result.manifest, restored, equal));
    }
    return rows;
  } finally {
    await host?.close();
    await simulator.close();
    await transcript.close();
    await rm(work, { recursive: true, force: true });
  }
}

type DemoVm = Awaited<ReturnType<Simulator['createVm']>>;

/** A VM with a real ext4 file system, and a larger disk that is mostly empty. */
async function makeVm(simulator: Simulator, work: string): Promise<DemoVm> {
  const image = await unpack(work, 'first');
  const disks = [
    { name: 'system', size: 64 * MIB, rawImage: image },
    { name: 'data', size: 2 * GIB },
  ];
  const vm = await simulator.createVm({ name: 'demo', disks, vifs: [{}], cd: 'empty' });
  for (let at = 0; at < 8; at++)
    await simulator.writeDisk(vm.uuid, '1', at * 256 * MIB + at * 4096, noise(4 * MIB, at));
  return vm;
}

/** The guest goes on: its file system becomes the next state, and a few places of the other disk change. */
async function guestWrites(
  simulator: Simulator,
  vm: DemoVm,
  work: string,
  state: (typeof STATES)[number],
  step: number,
): Promise<void> {
  const before = await open(join(work, `${STATES[step - 1]}.img`));
  const after = await open(await unpack(work, state));
  try {
    const old = Buffer.alloc(64 * 1024);
    const now = Buffer.alloc(64 * 1024);
    for (let at = 0; at < 64 * MIB; at += now.byteLength) {
      await before.read(old, 0, old.byteLength, at);
      await after.read(now, 0, now.byteLength, at);
      if (!old.equals(now)) await simulator.writeDisk(vm.uuid, '0', at, now);
    }
  } finally {
    await before.close();
    await after.close();
  }
  await simulator.writeDisk(vm.uuid, '1', GIB + step * 10 * MIB, noise(2 * MIB, 100 + step));
  await simulator.writeDisk(vm.uuid, '1', 256 * MIB + 4096, new Uint8Array(step * MIB)); // what was data becomes zeros
}

async function hashDisks(simulator: Simulator, vm: DemoVm): Promise<ReadonlyMap<string, string>> {
  const hashes = new Map<string, string>();
  for (const { uuid } of vm.disks) hashes.set(uuid, await simulator.hashDisk(uuid));
  return hashes;
}

async function unpack(work: string, state: string): Promise<string> {
  const path = join(work, `${state}.img`);
  const packed = new URL(`../../fixtures/ext4/${state}.img.gz`, import.meta.url);
  await writeFile(path, '');
  await pipeline(createReadStream(packed).pipe(createGunzip()), (chunks) => writeFile(path, chunks));
  return path;
}

/** Bytes that no compressor shortens and that are the same in every run. */
function noise(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  let state = seed * 2654435761 + 1;
  for (let at = 0; at < words.length; at++) {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    words[at] = state ^ (state >>> 13);
  }
  return new Uint8Array(words.buffer);
}
