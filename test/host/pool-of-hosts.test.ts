import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { connectHost, type Host } from '../../src/host/index.ts';
import { preflight } from '../../src/preflight/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { memoryStore, openRepository } from '../../src/store/index.ts';

const MIB = 1024 * 1024;
const PATTERN = randomBytes(3 * MIB);

function connectAt(simulator: Simulator, at = 0, trusted = simulator.hosts): Promise<Host> {
  const { username, password, resolveAddress } = simulator;
  return connectHost({
    url: simulator.hosts[at]!.url,
    username,
    password,
    tls: { certificate: trusted.map(({ certificate }) => certificate) },
    resolveAddress,
  });
}

/** The storage that only one host sees. */
async function localSr(host: Host, simulator: Simulator, at: number): Promise<string> {
  const pbds = [...simulator.world.objects('PBD')].map(([, pbd]) => pbd);
  const srs = await host.listRecords('SR');
  const own = pbds.filter((pbd) => pbd.host === simulator.hosts[at]!.ref).map(({ SR }) => SR);
  return srs.find(({ ref, name_label }) => name_label === 'Local storage' && own.includes(ref))!.ref;
}

/** A VM whose one disk lies on the second host's own storage. */
async function vmOnMember(host: Host, simulator: Simulator) {
  const sr = await localSr(host, simulator, 1);
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB, sr }] });
  await simulator.writeDisk(vm.uuid, '0', MIB, PATTERN);
  return vm;
}

async function allowNbd(host: Host): Promise<void> {
  const networks = await host.listNetworks();
  await host.enableNbd(networks.find(({ addresses }) => addresses.length > 1)!.uuid);
}

describe('a member', () => {
  test('names its coordinator, and the login goes there', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator, 1);
    expect((await host.listRecords('host')).map(({ address }) => address).sort()).toEqual(
      simulator.hosts.map(({ address }) => address).sort(),
    );
    expect(
      await host.callAsync('VM.clone', [(await simulator.createVm({ powerState: 'Halted' })).ref, 'copy']),
    ).toMatch(/^OpaqueRef:/);
  });

  test('serves the disks on its own storage: exports and imports are sent there', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator);
    const vm = await vmOnMember(host, simulator);
    await host.callAsync('VM.hard_shutdown', [vm.ref]);
    const read: Buffer[] = [];
    await using transfer = await host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' });
    for await (const chunk of transfer.chunks) read.push(Buffer.from(chunk));
    expect(
      Buffer.concat(read)
        .subarray(MIB, 4 * MIB)
        .equals(PATTERN),
    ).toBe(true);
    await host.importDisk(vm.disks[0]!.uuid, { length: 8 * MIB, chunks: zeros(8 * MIB) }, { format: 'raw' });
    const fresh = await simulator.createVm({ disks: [{ size: 8 * MIB }] });
    expect(await simulator.hashDisk(vm.disks[0]!.uuid)).toBe(await simulator.hashDisk(fresh.disks[0]!.uuid));
  });

  test('whose certificate is not believed is sent nothing', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator, 0, [simulator.hosts[0]!]);
    const vm = await vmOnMember(host, simulator);
    await host.callAsync('VM.hard_shutdown', [vm.ref]);
    const { length } = simulator.log.entries;
    await expect(host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' })).rejects.toMatchObject({
      code: 'HOST_CERTIFICATE_MISMATCH',
      message: expect.stringContaining(simulator.hosts[1]!.address) as string,
    });
    const asked = simulator.log.entries.slice(length).filter(({ path }) => path === '/export_raw_vdi');
    expect(asked).toHaveLength(1); // the coordinator, which sent us on
  });
});

describe('NBD', () => {
  test('of a disk that one host sees goes to that host; of a shared one to any', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator);
    await allowNbd(host);
    const vm = await vmOnMember(host, simulator);
    const shared = await simulator.createVm({ disks: [{ size: 8 * MIB }], powerState: 'Halted' });
    await host.callAsync('VM.hard_shutdown', [vm.ref]);
    const { address } = simulator.hosts[1]!;
    const ways = await host.call<{ address: string }[]>('VDI.get_nbd_info', vm.disks[0]!.vdi);
    expect(ways.map((way) => way.address)).toEqual([address]);
    await using disk = await host.openNbd(vm.disks[0]!.uuid);
    expect(await hashDisk(disk)).toBe(await simulator.hashDisk(vm.disks[0]!.uuid));

    const all = await host.call<{ address: string }[]>('VDI.get_nbd_info', shared.disks[0]!.vdi);
    expect(all.map((way) => way.address)).toEqual(simulator.hosts.map((one) => one.address));
  });

  test('is tried at each host by the preflight check', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator);
    await allowNbd(host);
    const findings = await preflight(host, { vms: [] });
    const sessions = findings.filter(({ id }) => id === 'nbd.session');
    expect(sessions.map(({ evidence }) => (evidence as { address: string }).address).sort()).toEqual(
      simulator.hosts.map(({ address }) => address).sort(),
    );
  });
});

test.each(['changed-blocks', 'image'] as const)(
  '%s: back and forth with a disk that only a member sees',
  async (strategy) => {
    await using simulator = await startSimulator({ hosts: 3 });
    await using host = await connectAt(simulator);
    await allowNbd(host);
    const vm = await vmOnMember(host, simulator);
    const repository = await openRepository(memoryStore());
    await backupVm(host, repository, { vm: vm.uuid, strategy });
    await simulator.writeDisk(vm.uuid, '0', 5 * MIB, randomBytes(MIB));
    const { point, manifest } = await backupVm(host, repository, { vm: vm.uuid, strategy });
    expect(manifest.disks.map(({ mode }) => mode)).toEqual(['delta']);
    const restored = await restoreVm(host, repository, { point });
    const [{ uuid } = { uuid: '' }] = vm.disks;
    expect(await simulator.hashDisk(restored.disks[uuid]!)).toBe(await simulator.hashDisk(uuid));
  },
);

describe('another coordinator', () => {
  test('is found by the next call', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator);
    simulator.changeCoordinator(simulator.hosts[1]!.address);
    const vm = await simulator.createVm({ powerState: 'Halted' });
    expect((await host.getVm(vm.uuid)).uuid).toBe(vm.uuid);
    expect(await host.callAsync('VM.clone', [vm.ref, 'copy'])).toMatch(/^OpaqueRef:/);
    simulator.changeCoordinator(simulator.hosts[0]!.address);
    expect(await Promise.all([host.listVms(), host.listNetworks(), host.listRecords('SR')])).toHaveLength(3);
  });

  test('in the middle of a backup: a point or none, nothing left, and the next run works', async () => {
    await using simulator = await startSimulator({ hosts: 2 });
    await using host = await connectAt(simulator);
    await allowNbd(host);
    const vm = await simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }] });
    await simulator.writeDisk(vm.uuid, '0', MIB, PATTERN);
    const repository = await openRepository(memoryStore());
    let changed = false;
    const onProgress = (event: { readonly kind: string }) => {
      if (event.kind !== 'bytes-moved' || changed) return;
      changed = true;
      simulator.changeCoordinator(simulator.hosts[1]!.address);
    };
    const error: unknown = await backupVm(host, repository, { vm: vm.uuid, onProgress }).catch(
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: expect.any(String) as string, report: { outcome: 'failed' } });
    expect(await repository.list()).toEqual([]);
    expect(await findLeftovers(host)).toEqual([]);
    expect((await host.listRecords('VM')).filter((one) => one.is_a_snapshot)).toEqual([]);
    const { point } = await backupVm(host, repository, { vm: vm.uuid });
    expect((await repository.verify(point, { level: 'content' })).ok).toBe(true);
  });
});

async function* zeros(length: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < length; at += MIB) yield new Uint8Array(MIB);
}
