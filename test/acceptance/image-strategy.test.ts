import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import type { PlanBackupOptions, RunBackupOptions } from '../../src/backup/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import { planRestore, restoreDisk, restoreVm, verifyRestored } from '../../src/restore/index.ts';
import type { PointId } from '../../src/store/index.ts';
import { checkVhd, openVhd } from '../../src/vhd/index.ts';
import { checkXva, openXva, xvaVm } from '../../src/xva/index.ts';
import { addSr } from '../restore/support.ts';
import { hookRows, quiesceRows } from './support/consistency.ts';
import { addDisk, MIB, namesOf, type Road, snapshotsOn, startRoad, storedHashes } from './support/road.ts';
import { group, type RowProfile, row } from './support/row.ts';

/** Releases that differ in archives: their checksums, zstd, the records in them. */
const ARCHIVES: readonly RowProfile[] = [
  'xcp-ng-8.3',
  'citrix-hypervisor-8.2',
  'citrix-hypervisor-8.0',
  'xenserver-7.2',
];

const backup = (road: Road, options: Omit<PlanBackupOptions & RunBackupOptions, 'vm'> = {}) =>
  road.backup({ ...options, strategy: 'image' });

const write = ({ simulator, vm }: Road, device: string, offset: number, bytes = 100_000) =>
  simulator.writeDisk(vm.uuid, device, offset, randomBytes(bytes));

function bytesStored(files: readonly { readonly role: string; readonly length: number }[]): number {
  return files.filter(({ role }) => role === 'image' || role === 'disk').reduce((sum, { length }) => sum + length, 0);
}

group('Image strategy (XVA)', () => {
  row(
    'S1',
    'the VM is exported as a single XVA bundle with all the data',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      road.asked();
      const hashes = await road.hashes();
      const { manifest, point } = await backup(road);
      expect(namesOf(road.asked()).filter((name) => name === 'GET /export')).toHaveLength(1);
      expect(manifest.files.filter(({ role }) => role === 'image')).toHaveLength(1);
      expect(manifest.files.filter(({ role }) => role === 'disk')).toEqual([]);
      expect(manifest.disks.map(({ mode, transport }) => [mode, transport])).toEqual([
        ['full', 'xva'],
        ['full', 'xva'],
      ]);
      expect(await storedHashes(road, point)).toEqual(hashes);
      await using image = await openXva(await road.repository.openFile(point, 'image'));
      for (const [index, { uuid }] of road.vm.disks.entries()) {
        const disk = image.disks.find(({ device }) => device === String(index));
        expect(await hashDisk(disk!)).toBe(hashes[uuid]);
      }
      expect(xvaVm(image.metadata)).toMatchObject({ drives: { length: 3 }, nics: { length: 2 } });
    },
    { on: ARCHIVES },
  );
  row(
    'S1',
    'compressed by the host where it can, plain and told where it cannot',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      const { manifest, point, report } = await backup(road, { compression: 'zstd' });
      const knowsZstd = !['citrix-hypervisor-8.0', 'xenserver-7.2'].includes(profile);
      expect(manifest.image?.compression).toBe(knowsZstd ? 'zstd' : 'none');
      expect(manifest.files.find(({ role }) => role === 'image')!.name).toMatch(knowsZstd ? /\.xva\.zst$/ : /\.xva$/);
      const fallbacks = report.decisions.filter(({ topic }) => topic === 'fallback');
      expect(fallbacks.map(({ choice }) => choice)).toEqual(knowsZstd ? [] : ['none']);
      await using file = await road.repository.openFile(point, 'image');
      expect(await checkXva(file)).toMatchObject({ ok: true, plainLength: manifest.image?.plainLength });
    },
    { on: ARCHIVES },
  );

  row('S2', 'incrementals are supported and store less than the full', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const full = await backup(road);
    await write(road, '1', 2 * MIB);
    const incr = await backup(road);
    expect(incr.manifest).toMatchObject({ type: 'incr', base: full.manifest.point });
    expect(bytesStored(incr.manifest.files)).toBeLessThan(bytesStored(full.manifest.files));
    expect(await storedHashes(road, incr.point)).toEqual(await road.hashes());
  });

  row('S3', 'data comes directly from the API, nothing is set up on the hosts', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    road.asked();
    await backup(road);
    await write(road, '0', 2 * MIB);
    await backup(road);
    const asked = road.asked();
    expect(asked.filter(({ kind }) => kind === 'nbd')).toEqual([]);
    const handlers = namesOf(asked).filter((name) => name.includes(' '));
    expect(new Set(handlers)).toEqual(new Set(['GET /export', 'GET /export_metadata', 'GET /export_raw_vdi']));
    expect(namesOf(asked).filter((name) => /plugin|cbt|network\.add/i.test(name))).toEqual([]);
  });

  row('S4', 'crash-consistent snapshot through the API, kept for full backups only', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    road.asked();
    const full = await backup(road);
    expect(namesOf(road.asked()).filter((name) => name === 'VM.snapshot')).toHaveLength(1);
    expect(await snapshotsOn(road)).toEqual([full.manifest.snapshot.uuid]);
    await write(road, '0', 2 * MIB);
    const incr = await backup(road);
    expect(incr.manifest).toMatchObject({
      type: 'incr',
      snapshot: { kept: false },
      consistency: { requested: 'crash-consistent', achieved: 'crash-consistent' },
    });
    expect(namesOf(road.asked()).filter((name) => name === 'VM.snapshot')).toHaveLength(1);
    expect(incr.report.receipt).toContainEqual(
      expect.objectContaining({ kind: 'snapshot', uuid: incr.manifest.snapshot.uuid, state: 'removed' }),
    );
    expect(await snapshotsOn(road)).toEqual([full.manifest.snapshot.uuid]);
  });

  quiesceRows('S5', backup);
  hookRows('S6', backup);

  row('S7', 'export directly through the API: full as XVA, delta as one VHD for each disk', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const full = await backup(road);
    await write(road, '0', 2 * MIB);
    road.asked();
    const { manifest, point } = await backup(road);
    const asked = road.asked().filter(({ path }) => path === '/export_raw_vdi');
    expect(asked.map(({ query }) => query?.['base']).sort()).toEqual(
      full.manifest.disks.map(({ snapshotVdiUuid }) => snapshotVdiUuid).sort(),
    );
    const layers = manifest.files.filter(({ role }) => role === 'disk');
    expect(layers).toHaveLength(2);
    for (const { name } of layers) {
      const source = await road.repository.store.open(`vms/${point.vmUuid}/${name}`);
      expect(await checkVhd(source, { level: 'bitmaps' })).toMatchObject({ ok: true, findings: [] });
      await using vhd = await openVhd(source);
      expect(vhd.parent).toMatchObject({ name: `${full.manifest.point}.vhd` });
    }
  });
  row('S7', 'a disk without differences to tell is a full of its own, and the report says why', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    await backup(road);
    await addDisk(road);
    const { manifest, point } = await backup(road);
    expect(manifest.disks.map(({ mode }) => mode)).toEqual(['delta', 'delta', 'full']);
    expect(manifest.disks[2]).toMatchObject({ reason: expect.stringContaining('came since'), format: 'vhd' });
    await using disk = await road.repository.openDisk(point, manifest.disks[2]!.vdiUuid);
    expect(await hashDisk(disk)).toBe(await road.simulator.hashDisk(manifest.disks[2]!.vdiUuid));
  });

  row(
    'S8',
    'the full backup contains the metadata',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      const { point } = await backup(road);
      await using image = await openXva(await road.repository.openFile(point, 'image'));
      const vm = xvaVm(image.metadata);
      const record = await road.host.getVm('web');
      const vifs = await Promise.all(record.VIFs.map((ref) => road.host.getRecord('VIF', ref)));
      expect(vm.nics.map(({ device, mac }) => [device, mac]).sort()).toEqual(
        vifs.map(({ device, MAC }) => [device, MAC]).sort(),
      );
      expect(vm).toMatchObject({
        name: 'web',
        cpus: { max: Number(record['VCPUs_max' as keyof typeof record]) },
        memory: { staticMax: Number(record['memory_static_max' as keyof typeof record]) },
      });
      expect(vm.drives.filter(({ type }) => type === 'Disk').map(({ device }) => device)).toEqual(['0', '1']);
    },
    { on: ARCHIVES },
  );

  row('S9', 'the snapshot of the full stays for the next incremental, if one is to come', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const { manifest } = await backup(road);
    const [kept] = (await road.host.listRecords('VM')).filter((vm) => vm.is_a_snapshot);
    expect(kept).toMatchObject({ uuid: manifest.snapshot.uuid });
    expect(JSON.parse(kept!.other_config['xen-backup-sdk:owner']!)).toMatchObject({
      uuid: kept!.uuid,
      state: 'kept',
      keptFor: { strategy: 'image', point: manifest.point },
    });
    const last = await backup(road, { keepForIncremental: false });
    expect(last.manifest.type).toBe('incr');
    expect(await snapshotsOn(road)).toEqual([]);
    const lone = await backup(road, { keepForIncremental: false });
    expect(lone.manifest).toMatchObject({ type: 'full', snapshot: { kept: false } });
    expect(lone.manifest.disks[0]!.reason).toMatch(/gone/);
    expect(await snapshotsOn(road)).toEqual([]);
  });
  row('S9', 'a new full takes the place of the old one as the base', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    await backup(road);
    await backup(road);
    const second = await backup(road, { mode: 'full' });
    expect(await snapshotsOn(road)).toEqual([second.manifest.snapshot.uuid]);
    expect((await backup(road)).manifest.base).toBe(second.manifest.point);
  });

  row('S10', 'incrementals are cumulative, since the last full', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const full = await backup(road);
    const points: PointId[] = [];
    const hashes: Record<string, string>[] = [];
    for (let n = 1; n <= 3; n++) {
      await write(road, '1', n * 4 * MIB);
      const { manifest, point } = await backup(road, { mode: 'incremental' });
      expect(manifest.base).toBe(full.manifest.point);
      expect(manifest.disks.map(({ basePoint }) => basePoint)).toEqual([full.manifest.point, full.manifest.point]);
      points.push(point);
      hashes.push(await road.hashes());
    }
    await road.repository.remove(points[1]!);
    expect(await storedHashes(road, points[0]!)).toEqual(hashes[0]);
    expect(await storedHashes(road, points[2]!)).toEqual(hashes[2]);
    expect((await road.repository.verify('all', { level: 'content' })).ok).toBe(true);
    await expect(road.repository.remove(full.point)).rejects.toMatchObject({ code: 'POINT_NEEDED' });
  });

  row(
    'S11',
    'restore = import the XVA, then apply the deltas through the API',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      const fullHashes = await road.hashes();
      const full = await backup(road);
      await write(road, '0', 2 * MIB);
      await road.simulator.writeDisk(road.vm.uuid, '1', 20 * MIB, new Uint8Array(2 * MIB)); // became zeros
      const hashes = await road.hashes();
      const incr = await backup(road);
      await write(road, '0', 8 * MIB); // after the points

      road.asked();
      const restored = await restoreVm(road.host, road.repository, { point: incr.point });
      const names = namesOf(road.asked()).filter((name) => name.startsWith('PUT '));
      expect(names).toEqual(['PUT /import', 'PUT /import_raw_vdi', 'PUT /import_raw_vdi']);
      await expectRestored(road, restored, hashes);
      const first = await restoreVm(road.host, road.repository, { point: full.point });
      await expectRestored(road, first, fullHashes);
      const { vmUuid, point } = incr.point;
      const verified = await verifyRestored(road.host, road.repository, {
        point: { vmUuid, point },
        disks: restored.disks,
      });
      expect(verified.map(({ equal }) => equal)).toEqual([true, true]);
    },
    { on: ARCHIVES },
  );
  row('S11', 'a compressed image is restored as well', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    await backup(road, { compression: 'zstd' });
    await write(road, '0', 2 * MIB);
    const hashes = await road.hashes();
    const { point } = await backup(road);
    await expectRestored(road, await restoreVm(road.host, road.repository, { point }), hashes);
  });
  row('S11', 'with disks added, removed and grown since the full', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const { host, simulator, vm } = road;
    await backup(road);
    const added = await host.getRecord('VDI', await addDisk(road));
    await host.callAsync('VM.hard_shutdown', [vm.ref]);
    const [grown, gone] = await host.listDisks(vm.ref);
    await host.callAsync('VBD.destroy', [gone!.vbd.ref]);
    await host.callAsync('VDI.resize', [grown!.vdi.ref, 24 * MIB]);
    await simulator.writeDisk(vm.uuid, '0', 20 * MIB, randomBytes(MIB));
    const { manifest, point } = await backup(road);
    expect(manifest.disks.map(({ vdiUuid, mode, size }) => [vdiUuid, mode, size])).toEqual([
      [grown!.vdi.uuid, 'delta', 24 * MIB],
      [added.uuid, 'full', 8 * MIB],
    ]);
    const restored = await restoreVm(host, road.repository, { point });
    await expectRestored(road, restored, {
      [grown!.vdi.uuid]: await simulator.hashDisk(grown!.vdi.uuid),
      [added.uuid]: await simulator.hashDisk(added.uuid),
    });
    const names = (await host.listRecords('VDI')).map((vdi) => vdi.name_label);
    expect(names.filter((name) => name.includes('xen-backup-sdk'))).toEqual([]);
  });
  row(
    'S11',
    'onto storage without VHDs every byte is written; single disks and SRs are refused',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      const sr = addSr(road, 'iscsi', 'block');
      await backup(road);
      await write(road, '0', 2 * MIB);
      const hashes = await road.hashes();
      const { point } = await backup(road);
      const restored = await restoreVm(road.host, road.repository, { point, sr: 'block' });
      await expectRestored(road, restored, hashes);
      const plan = await planRestore(road.host, road.repository, { point, skipDisks: ['0'], srByDisk: { 1: 'block' } });
      expect(plan.conflicts.map(({ code, subject }) => [code, subject])).toEqual([
        ['NOT_WITH_IMAGE', 'skipDisks'],
        ['NOT_WITH_IMAGE', 'srByDisk'],
      ]);
      const [{ uuid } = { uuid: '' }] = road.vm.disks;
      const alone = await restoreDisk(road.host, road.repository, { point, vdiUuid: uuid, target: { sr } });
      expect(await road.simulator.hashDisk(alone)).toBe(hashes[uuid]);
    },
  );
  row(
    'S11',
    'a host older than the archive gets each disk by itself',
    async ({ profile }) => {
      await using road = await startRoad(profile, false);
      await backup(road);
      await write(road, '0', 2 * MIB);
      const hashes = await road.hashes();
      const { point } = await backup(road);
      const code = 'IMPORT_INCOMPATIBLE_VERSION';
      await using older = await startRoad('citrix-hypervisor-8.2', false);
      const planned = await planRestore(older.host, road.repository, {
        point,
        networks: await networksOf(road, older),
      });
      expect(planned.conflicts).toEqual([]);
      expect(planned.decisions).toContainEqual(expect.objectContaining({ topic: 'import', subject: 'vm' }));
      const restored = await restoreVm(older.host, road.repository, { point, networks: await networksOf(road, older) });
      expect(restored.report.decisions).toContainEqual(
        expect.objectContaining({ topic: 'fallback', subject: 'vm', reason: expect.stringContaining(code) }),
      );
      await expectRestored(older, restored, hashes);
      const { point: packed } = await backup(road, { mode: 'full', compression: 'zstd' });
      const refused = await planRestore(older.host, road.repository, {
        point: packed,
        networks: await networksOf(road, older),
      });
      expect(refused.conflicts).toEqual([expect.objectContaining({ code: 'ARCHIVE_TOO_NEW' })]);
    },
    { on: ['xcp-ng-8.3', 'xenserver-8'] },
  );
});

type Restored = Awaited<ReturnType<typeof restoreVm>>;

/** A VM proper, halted, under its name, with exactly these disks. */
async function expectRestored(
  { host, simulator }: Road,
  { vmUuid, disks }: Restored,
  hashes: Readonly<Record<string, string>>,
): Promise<void> {
  const vm = await host.getRecord('VM', vmUuid);
  expect(vm).toMatchObject({ is_a_template: false, is_a_snapshot: false, power_state: 'Halted' });
  expect(vm.name_label).toMatch(/^web( \(restored .*\))?$/);
  expect(Object.keys(vm.other_config).filter((key) => key.startsWith('xen-backup-sdk:'))).toEqual([
    'xen-backup-sdk:restored-from',
  ]);
  expect(Object.keys(disks).sort()).toEqual(Object.keys(hashes).sort());
  const attached = (await host.listDisks(vmUuid)).map(({ vdi }) => vdi);
  expect(attached.map(({ uuid }) => uuid).sort()).toEqual(Object.values(disks).sort());
  for (const { other_config } of attached) expect(other_config).not.toHaveProperty('xen-backup-sdk:owner');
  for (const [source, made] of Object.entries(disks)) expect(await simulator.hashDisk(made)).toBe(hashes[source]);
}

/** Networks of one pool to the first of the other. */
async function networksOf(from: Road, to: Road): Promise<Record<string, string>> {
  const [target] = await to.host.listNetworks();
  return Object.fromEntries((await from.host.listNetworks()).map(({ uuid }) => [uuid, target!.uuid]));
}
