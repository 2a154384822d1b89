import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { preflight } from '../../src/preflight/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import { parseVmMetadata } from '../../src/store/index.ts';
import { openVhd } from '../../src/vhd/index.ts';
import { hookRows, quiesceRows } from './support/consistency.ts';
import { addDisk, KIB64, MIB, namesOf, snapshotsOn, startRoad, storedHashes } from './support/road.ts';
import { group, NEEDS_TRACKING, row } from './support/row.ts';

group('Changed-block strategy (CBT)', () => {
  row('S12', 'full by the API, incrementals by NBD', async ({ profile }) => {
    await using road = await startRoad(profile);
    road.asked();
    await road.backup();
    const full = road.asked();
    expect(namesOf(full).filter((name) => name === 'GET /export_raw_vdi')).toHaveLength(2);
    expect(full.some(({ kind }) => kind === 'nbd')).toBe(false);

    await road.simulator.writeDisk(road.vm.uuid, '1', 2 * MIB, randomBytes(100_000));
    await road.backup();
    const incremental = road.asked();
    expect(namesOf(incremental)).not.toContain('GET /export_raw_vdi');
    expect(namesOf(incremental).filter((name) => name === 'VDI.list_changed_blocks')).toHaveLength(2);
    expect(namesOf(incremental)).toContain('VDI.get_nbd_info');
    expect(incremental.some(({ kind, method }) => kind === 'nbd' && method === 'READ')).toBe(true);
  });
  row(
    'S12',
    'a disk that is new since the last run is exported in full, and the report says so',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      await road.backup();
      await addDisk(road);
      const { manifest } = await road.backup();
      expect(manifest.type).toBe('incr');
      expect(manifest.disks.map(({ mode }) => mode)).toEqual(['delta', 'delta', 'full']);
      expect(manifest.disks[2]!.reason).toMatch(/came since/);
    },
  );

  row(
    'S13',
    'a missing CBT licence is a finding, a typed error, or the full that the plan allows',
    async ({ profile }) => {
      await using road = await startRoad(profile, true, {}, { restrictions: ['restrict_cbt'] });
      const findings = await preflight(road.host, { vms: ['web'] });
      expect(findings).toContainEqual(
        expect.objectContaining({ id: 'pool.licence', severity: 'error', evidence: { restrict_cbt: true } }),
      );
      await expect(road.backup({ mode: 'incremental' })).rejects.toMatchObject({
        code: 'CBT_UNAVAILABLE',
        facts: { reason: 'licence' },
      });
      const { manifest, point } = await road.backup();
      expect(manifest.disks.map(({ mode }) => mode)).toEqual(['full', 'full']);
      expect(await storedHashes(road, point)).toEqual(await road.hashes());
      expect(namesOf(road.asked())).not.toContain('VDI.enable_cbt');
    },
  );

  row('S14', 'separate files for each disk plus metadata, drives can be excluded', async ({ profile }) => {
    await using road = await startRoad(profile);
    const [first, second] = road.vm.disks;
    const rules = ['1', second!.uuid, ({ vdi }: { vdi: { uuid: string } }) => vdi.uuid === second!.uuid];
    for (const rule of rules) {
      const { manifest, point } = await road.backup({ exclude: [rule], mode: 'full' });
      expect(manifest.files.map(({ role }) => role).sort()).toEqual([
        'digests',
        'disk',
        'metadata',
        'metadata-archive',
      ]);
      expect(manifest.disks).toMatchObject([
        { vdiUuid: first!.uuid, mode: 'full' },
        { vdiUuid: second!.uuid, mode: 'excluded', transport: 'none' },
      ]);
      await expect(road.repository.openDisk(point, second!.uuid)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    const [{ vmUuid, point } = { vmUuid: '', point: '' }] = await road.repository.list();
    const skipped = await restoreVm(road.host, road.repository, { point: { vmUuid, point } });
    expect(await road.host.listDisks(skipped.vmUuid)).toHaveLength(1);
    const emptied = await restoreVm(road.host, road.repository, { point: { vmUuid, point }, excludedDisks: 'empty' });
    const disks = await road.host.listDisks(emptied.vmUuid);
    expect(disks.map(({ vdi }) => vdi.virtual_size)).toEqual([16 * MIB, 32 * MIB]);
    const zeros = await road.simulator.createVm({ disks: [{ size: 32 * MIB }] });
    expect(await road.simulator.hashDisk(disks[1]!.vdi.uuid)).toBe(await road.simulator.hashDisk(zeros.disks[0]!.uuid));
  });

  row('S15', 'for full backups only, no CBT is needed', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    road.asked();
    const before = await road.hashes();
    const { point, manifest } = await road.backup({ fullOnly: true });
    const names = namesOf(road.asked());
    expect(names).not.toContain('VDI.enable_cbt');
    expect(names).not.toContain('VDI.list_changed_blocks');
    expect(manifest.snapshot.kept).toBe(false);
    expect(await snapshotsOn(road)).toEqual([]);
    const restored = await restoreVm(road.host, road.repository, { point });
    for (const [source, made] of Object.entries(restored.disks)) {
      expect(await road.simulator.hashDisk(made)).toBe(before[source]);
    }
  });
  row(
    'S15',
    'a licence without CBT still gives fulls, and says why',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      const code = 'LICENCE_RESTRICTION';
      road.simulator.fault('call-error', { method: 'VDI.enable_cbt', code, params: ['CBT'], times: 2 });
      const { manifest } = await road.backup();
      expect(manifest.type).toBe('full');
      expect(manifest.warnings.filter(({ code }) => code === 'TRACKING_REFUSED')).toHaveLength(2);
      expect(await storedHashes(road, { vmUuid: road.vm.uuid, point: manifest.point })).toEqual(await road.hashes());
    },
    { notOn: NEEDS_TRACKING },
  );

  row('S16', 'crash-consistent snapshot through the API, one for each run', async ({ profile }) => {
    await using road = await startRoad(profile);
    for (const type of profile === 'xenserver-7.2' ? ['full', 'full'] : ['full', 'incr']) {
      road.asked();
      const { manifest } = await road.backup();
      expect(manifest).toMatchObject({
        type,
        consistency: { requested: 'crash-consistent', achieved: 'crash-consistent' },
      });
      const names = namesOf(road.asked());
      expect(names.filter((name) => name === 'VM.snapshot')).toHaveLength(1);
      expect(names).not.toContain('VM.snapshot_with_quiesce');
    }
  });

  quiesceRows('S17', (road, options) => road.backup(options));
  hookRows('S18', (road, options) => road.backup(options));

  row('S19', 'CBT is enabled during the full backup, on each disk where it was off', async ({ profile }) => {
    await using road = await startRoad(profile);
    const { host, vm } = road;
    const refs = await Promise.all(vm.disks.map(async ({ uuid }) => (await host.getRecord('VDI', uuid)).ref));
    await host.callAsync('VDI.enable_cbt', [refs[0]!]);
    road.asked();
    const { manifest } = await road.backup();
    const asked = road.asked().filter(({ method }) => /enable_cbt|VM\.snapshot$/.test(method));
    expect(asked.map(({ method }) => method.replace('Async.', ''))).toEqual(['VDI.enable_cbt', 'VM.snapshot']);
    expect(asked[0]!.params).toEqual([refs[1]]);
    expect(manifest.disks.map(({ trackingEnabled }) => trackingEnabled)).toEqual([false, true]);
    expect(manifest.decisions).toContainEqual(expect.objectContaining({ topic: 'tracking', choice: 'enabled' }));
  });
  row(
    'S19',
    'a refusal on one disk is reported and does not fail the others; an excluded disk is untouched',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      const { host, simulator } = road;
      const code = 'SR_BACKEND_FAILURE_66';
      simulator.fault('call-error', { method: 'VDI.enable_cbt', code, params: ['', 'raw', ''] });
      const { manifest } = await road.backup();
      expect(manifest.disks.map(({ trackingEnabled }) => trackingEnabled)).toEqual([false, true]);
      expect(manifest.warnings).toContainEqual(expect.objectContaining({ code: 'TRACKING_REFUSED' }));

      const other = await simulator.createVm({ disks: [{ size: 4 * MIB }, { size: 4 * MIB }] });
      await backupVm(host, road.repository, { vm: other.uuid, exclude: ['0'] });
      const tracked = await Promise.all(
        other.disks.map(async ({ uuid }) => (await host.getRecord('VDI', uuid)).cbt_enabled),
      );
      expect(tracked).toEqual([false, true]);
    },
  );

  row('S20', 'metadata is exported from the API', async ({ profile }) => {
    await using road = await startRoad(profile);
    road.asked();
    const { point, manifest } = await road.backup();
    expect(namesOf(road.asked())).toContain('GET /export_metadata');
    const metadata = parseVmMetadata(await road.repository.readMetadata(point), 'metadata');
    expect(metadata.format).toEqual({ major: 1, minor: 0 });
    expect(metadata.VM).toMatchObject({ uuid: road.vm.uuid, name_label: 'web', VCPUs_max: expect.any(Number) });
    expect(metadata.VM).toHaveProperty('platform');
    expect(metadata.VM).toHaveProperty('HVM_boot_params');
    if (!['xenserver-7.2', 'xenserver-7.3'].includes(profile)) expect(metadata.VM).toHaveProperty('NVRAM');
    expect(metadata.VDI.map(({ uuid }) => uuid).sort()).toEqual(road.vm.disks.map(({ uuid }) => uuid).sort());
    expect(metadata.VBD).toHaveLength(3);
    const [network] = metadata.network;
    expect(metadata.VIF.map((vif) => vif['network'])).toEqual([network!.uuid, network!.uuid]);
    expect(network).toHaveProperty('name_label');
    for (const { name } of manifest.files.filter(({ role }) => role !== 'disk')) {
      const text = await readFile(join(road.folder, 'vms', road.vm.uuid, name), 'latin1');
      expect(text).not.toContain(road.simulator.password);
      expect(text).not.toContain('session_id');
      if (name.endsWith('.json')) expect(text).not.toContain('OpaqueRef:');
    }
  });

  for (const transport of ['raw', 'vhd'] as const) {
    row(
      'S21',
      `full: each disk is exported from the API (${transport}), its logical content is RAW`,
      async ({ profile }) => {
        await using road = await startRoad(profile);
        const before = await road.hashes();
        road.asked();
        const { point, manifest } = await road.backup({ transport });
        const exports = road.asked().filter(({ path }) => path === '/export_raw_vdi');
        expect(exports.map(({ query }) => query['format'] ?? 'raw')).toEqual([transport, transport]);
        expect(await storedHashes(road, point)).toEqual(before);
        for (const { vdiUuid, file, size } of manifest.disks) {
          await using layer = await openVhd(join(road.folder, 'vms', road.vm.uuid, file!));
          expect(layer.size).toBe((await road.host.getRecord('VDI', vdiUuid)).virtual_size);
          expect(size).toBe(layer.size);
        }
      },
    );
  }

  row('S22', 'incremental: changed blocks are asked for, and only they are read over NBD', async ({ profile }) => {
    await using road = await startRoad(profile);
    await road.backup();
    const { simulator, vm } = road;
    // one block; two neighbours; one block a gap of one further on; the disk's last
    await simulator.writeDisk(vm.uuid, '1', 5 * KIB64 + 100, randomBytes(10));
    await simulator.writeDisk(vm.uuid, '1', 100 * KIB64 - 1, randomBytes(2));
    await simulator.writeDisk(vm.uuid, '1', 102 * KIB64, randomBytes(KIB64));
    await simulator.writeDisk(vm.uuid, '1', 32 * MIB - 512, randomBytes(512));
    const before = await road.hashes();
    road.asked();
    const { point, manifest } = await road.backup();
    const reads = road.asked().filter(({ kind, method }) => kind === 'nbd' && method === 'READ');
    const read = new Set<number>();
    let bytes = 0;
    for (const { query } of reads) {
      const [offset, length] = [Number(query['offset']), Number(query['length'])];
      bytes += length;
      for (let at = offset; at < offset + length; at += KIB64) read.add(Math.floor(at / KIB64));
    }
    expect([...read].sort((a, b) => a - b)).toEqual([5, 99, 100, 102, 511]);
    expect(bytes).toBe(5 * KIB64);
    expect(manifest.disks.map(({ changedBytes, bytesMoved }) => [changedBytes, bytesMoved])).toEqual([
      [0, 0],
      [5 * KIB64, 5 * KIB64],
    ]);
    expect(await storedHashes(road, point)).toEqual(before);
  });
  row('S22', 'the declared merge gap is read with them', async ({ profile }) => {
    await using road = await startRoad(profile);
    await road.backup();
    await road.simulator.writeDisk(road.vm.uuid, '1', 0, randomBytes(10));
    await road.simulator.writeDisk(road.vm.uuid, '1', 2 * KIB64, randomBytes(10));
    const { manifest, point } = await road.backup({ mergeGap: KIB64 });
    expect(manifest.disks[1]).toMatchObject({ changedBytes: 2 * KIB64, bytesMoved: 3 * KIB64 });
    expect(await storedHashes(road, point)).toEqual(await road.hashes());
  });

  row('S23', 'the last snapshot stays for the next incremental, the chain is incremental', async ({ profile }) => {
    await using road = await startRoad(profile);
    let previous: string | undefined;
    for (let run = 0; run < 4; run++) {
      await road.simulator.writeDisk(road.vm.uuid, '0', run * MIB, randomBytes(1000));
      const { manifest } = await road.backup();
      expect(await snapshotsOn(road)).toEqual([manifest.snapshot.uuid]);
      expect(manifest.base).toBe(previous);
      expect(manifest.disks[0]!.basePoint).toBe(previous);
      previous = manifest.point;
    }
    const { manifest } = await road.backup({ keepForIncremental: false });
    expect(manifest.type).toBe('incr');
    expect(await snapshotsOn(road)).toEqual([]);
  });

  row(
    'S24',
    'restore recreates the VM from metadata and imports the merged chain of each disk',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      const points = [];
      for (let run = 0; run < 4; run++) {
        await road.simulator.writeDisk(road.vm.uuid, '0', run * 3 * MIB, randomBytes(MIB));
        await road.simulator.writeDisk(road.vm.uuid, '1', 20 * MIB + run * KIB64, new Uint8Array(KIB64)); // data to zeros
        const hashes = await road.hashes();
        points.push({ hashes, ...(await road.backup()) });
      }
      for (const { point, hashes } of points) {
        road.asked();
        const restored = await restoreVm(road.host, road.repository, { point });
        const puts = namesOf(road.asked()).filter((name) => name === 'PUT /import_raw_vdi');
        expect(puts).toHaveLength(2); // one pass for each disk, however long its chain
        for (const [source, made] of Object.entries(restored.disks)) {
          expect(await road.simulator.hashDisk(made)).toBe(hashes[source]);
        }
        const vm = await road.host.getRecord('VM', restored.vmUuid);
        expect(vm).toMatchObject({ power_state: 'Halted', is_a_template: false, is_a_snapshot: false });
        expect((await road.host.listDisks(vm.ref)).map(({ vbd }) => vbd.userdevice)).toEqual(['0', '1']);
      }
    },
  );
});
