import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import type { ProgressEvent } from '../../src/core/index.ts';
import { memoryDisk } from '../../src/disk/index.ts';
import { planRestore, type RestorePlan, restoreVm, runRestore, verifyRestored } from '../../src/restore/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import type { Repository } from '../../src/store/index.ts';
import { failing } from '../support/failing.ts';
import { startPool } from '../support/pool.ts';
import { addSr, type BackedUp, everything, lose, MIB, startBackedUp } from './support.ts';

const restore = ({ host, repository, first }: BackedUp, options: Partial<Parameters<typeof restoreVm>[2]> = {}) =>
  restoreVm(host, repository, { point: first.point, ...options });

describe.each(['new', 'original'] as const)('a restore of the %s identity that fails leaves nothing', (identity) => {
  const refuse =
    (method: string, times = 1) =>
    ({ simulator }: BackedUp) =>
      simulator.fault('call-error', { method, code: 'SR_BACKEND_FAILURE_1', params: ['', 'no', ''], times });
  test.each<[string, (pool: BackedUp) => unknown]>([
    ['a disk import that breaks off', ({ simulator }) => simulator.fault('import-error', { after: 70_000 })],
    [
      'an archive that is refused',
      ({ simulator }) => simulator.fault('import-error', { after: 0, path: '/import_metadata', code: 'IMPORT_ERROR' }),
    ],
    ['VDI.create', refuse('VDI.create')],
    ['the mark of a disk', refuse('VDI.add_to_other_config')],
    ['VBD.create', refuse('VBD.create')],
    ['VIF.create', refuse('VIF.create')],
    ['the name of a disk', refuse('VDI.set_name_label')],
    ['the mark of the VM', refuse('VM.add_to_other_config')],
    ['the name of the VM', refuse('VM.set_name_label')],
    ['its blocked operations', refuse('VM.set_blocked_operations')],
  ])('%s', async (_, arm) => {
    const record = { blocked_operations: { destroy: 'keep it', hard_shutdown: 'no' } };
    await using pool = await startBackedUp({ vm: { powerState: 'Halted', record } });
    if (identity === 'original') {
      await pool.host.call('VM.set_blocked_operations', pool.vm.ref, {});
      await lose(pool);
    }
    const before = await everything(pool);
    arm(pool);
    const error = await failing(restore(pool));
    expect(error.report).toMatchObject({ run: 'restore', outcome: 'failed', point: pool.first.point.point });
    expect(error.receipt.filter(({ state }) => state !== 'removed')).toEqual([]);
    expect(JSON.stringify(error.report)).not.toMatch(/OpaqueRef:[0-9a-f]{8}/);
    expect(await everything(pool)).toEqual(before);
    expect(await findLeftovers(pool.host)).toEqual([]);
    const again = await restore(pool);
    expect(again.identity).toBe(identity);
    const { blocked_operations } = await pool.host.getRecord('VM', again.vmUuid);
    expect(blocked_operations).toEqual(record.blocked_operations);
  });
});

test('an answer to VDI.create that is lost: the disk is found by its name', async () => {
  await using pool = await startBackedUp();
  const before = await everything(pool);
  pool.simulator.fault('drop-connection', { method: 'Async.VDI.create', when: 'after' });
  await failing(restore(pool));
  expect({ ...(await everything(pool)), tasks: [] }).toEqual(before);
});

describe('an abort leaves nothing, and says so', () => {
  test.each(['transfer', 'bytes-moved', 'disk-finished', 'vm', 'finish'])('at %s', async (moment) => {
    await using pool = await startBackedUp();
    const before = await everything(pool);
    const stop = new AbortController();
    const reason = new Error('enough');
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === moment || (event.kind === 'stage' && event.stage === moment)) stop.abort(reason);
    };
    const error = await failing(restore(pool, { signal: stop.signal, onProgress }));
    expect(error).toMatchObject({ code: 'ABORTED', cause: reason, report: { outcome: 'aborted' } });
    expect(error.receipt.filter(({ state }) => state !== 'removed')).toEqual([]);
    expect(await everything(pool)).toEqual(before);
  });

  test('a listener that throws ends it as cleanly', async () => {
    await using pool = await startBackedUp();
    const before = await everything(pool);
    const cause = new Error('of the listener');
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === 'bytes-moved') throw cause;
    };
    expect(await failing(restore(pool, { onProgress }))).toMatchObject({ code: 'RUN_FAILED', cause });
    expect(await everything(pool)).toEqual(before);
  });
});

test('what cannot be removed is in the receipt', async () => {
  await using pool = await startBackedUp();
  pool.simulator.fault('call-error', { method: 'VIF.create', code: 'MAC_INVALID', params: ['x'] });
  pool.simulator.fault('call-error', { method: 'VM.destroy', code: 'OPERATION_BLOCKED', params: ['', 'mine'] });
  const error = await failing(restore(pool));
  expect(error).toMatchObject({ xapiCode: 'MAC_INVALID' });
  const left = error.receipt.filter(({ state }) => state === 'left');
  expect(left).toMatchObject([{ kind: 'vm', error: expect.stringContaining('OPERATION_BLOCKED') }]);
  expect(await pool.host.findRecord('VM', left[0]!.uuid)).toMatchObject({ is_a_snapshot: false });
});

test('progress comes in pairs, never above its total', async () => {
  await using pool = await startBackedUp();
  const events: ProgressEvent[] = [];
  const { disks } = await restore(pool, { onProgress: (event) => void events.push(event) });
  for (const diskId of Object.keys(disks)) {
    const own = events.filter((event) => 'diskId' in event && event.diskId === diskId);
    expect([own.at(0)?.kind, own.at(-1)?.kind]).toEqual(['disk-started', 'disk-finished']);
    for (const event of own) {
      if (event.kind === 'bytes-moved') expect(event.movedBytes).toBeLessThanOrEqual(event.totalBytes ?? 0);
    }
  }
});

describe('the host is another than the plan saw', () => {
  test('the original appears while the disks travel: it is not replaced', async () => {
    await using pool = await startBackedUp({ vm: { powerState: 'Halted' } });
    await lose(pool);
    const plan = JSON.parse(
      JSON.stringify(await planRestore(pool.host, pool.repository, { point: pool.first.point })),
    ) as RestorePlan;
    expect(plan.identity).toBe('original');
    const back = { ref: '' };
    const onProgress = (event: ProgressEvent) => {
      if (event.kind !== 'stage' || event.stage !== 'vm') return;
      // an older version of it, halted: what an import that keeps the uuid would take the place of
      back.ref = pool.simulator.world.addObject('VM', {
        uuid: pool.vm.uuid,
        name_label: 'back',
        power_state: 'Halted',
      });
      pool.simulator.world.updateObject('VM', back.ref, { version: -1 });
    };
    const error = await failing(runRestore(pool.host, pool.repository, plan, { onProgress }));
    expect(error.code).toBe('PLAN_STALE');
    expect((await pool.host.getRecord('VM', back.ref)).name_label).toBe('back');
  });

  test('a plan of another repository, and one with conflicts', async () => {
    await using pool = await startBackedUp();
    const plan = await planRestore(pool.host, pool.repository, { point: pool.first.point });
    const other = { ...plan, repositoryId: 'another' };
    expect((await failing(runRestore(pool.host, pool.repository, other))).code).toBe('PLAN_STALE');
    expect((await failing(restore(pool, { sr: 'nowhere' }))).code).toBe('PLAN_CONFLICT');
  });
});

describe('a host that refuses the archive, being older', () => {
  test('gets the VM from its records, BIOS strings and firmware included', async () => {
    const bios = { 'bios-vendor': 'Dell', 'system-serial-number': '4711', 'bios-version': '' };
    const record = { bios_strings: bios, HVM_shadow_multiplier: 1, blocked_operations: { destroy: 'mine' } };
    await using pool = await startBackedUp({ profile: 'xcp-ng-8.3', vm: { record, vtpm: 'AAAA' } });
    const source = (await pool.host.getRecord('VM', pool.vm.ref)) as unknown as Record<string, unknown>;
    const hashes = await Promise.all(pool.vm.disks.map(({ uuid }) => pool.simulator.hashDisk(uuid)));
    await using old = await startPool({ profile: 'xcp-ng-8.2' });
    const [network] = await old.host.listNetworks();
    const restored = await restoreVm(old.host, pool.repository, {
      point: pool.first.point,
      defaultNetwork: network!.uuid,
      vtpm: 'omit',
    });
    expect(restored.identity).toBe('original');
    expect(restored.report.warnings.map(({ code }) => code).sort()).toEqual(['DISC_NOT_FOUND', 'UUID_NEW']);
    expect(restored.report.decisions).toContainEqual(expect.objectContaining({ subject: 'vm', topic: 'fallback' }));
    const made = (await old.host.getRecord('VM', restored.vmRef)) as unknown as Record<string, unknown>;
    const same = [
      'name_label',
      'platform',
      'NVRAM',
      'HVM_boot_params',
      'VCPUs_max',
      'memory_static_max',
      'blocked_operations',
    ];
    for (const field of same) expect(made[field], field).toEqual(source[field]);
    expect(made['bios_strings']).toEqual({ 'bios-vendor': 'Dell', 'system-serial-number': '4711' });
    const keys = Object.keys(made['other_config'] as object).filter((key) => key.startsWith('xen-backup-sdk'));
    expect(keys).toEqual(['xen-backup-sdk:restored-from']);
    const macs = async (host: typeof old.host, vifs: unknown) =>
      (await Promise.all((vifs as string[]).map((ref) => host.getRecord('VIF', ref)))).map(({ MAC }) => MAC).sort();
    expect(await macs(old.host, made['VIFs'])).toEqual(await macs(pool.host, source['VIFs']));
    const disks = await old.host.listDisks(restored.vmRef);
    expect(await Promise.all(disks.map(({ vdi }) => old.simulator.hashDisk(vdi.uuid)))).toEqual(hashes);
  });

  test('and leaves nothing where that fails, too', async () => {
    await using pool = await startBackedUp({ vm: { cd: 'empty' } });
    await using old = await startPool({ profile: 'xcp-ng-8.2' });
    const before = await everything(old);
    const [network] = await old.host.listNetworks();
    const options = { point: pool.first.point, defaultNetwork: network!.uuid };
    for (const method of ['VM.create', 'VM.set_bios_strings', 'VBD.create']) {
      old.simulator.fault('call-error', { method, code: 'INTERNAL_ERROR', params: ['oops'] });
      const error = await failing(restoreVm(old.host, pool.repository, options));
      expect(error.receipt.filter(({ state }) => state !== 'removed')).toEqual([]);
      expect(await everything(old)).toEqual(before);
    }
  });
});

test('another VM with the same seed for addresses: a new seed, the same addresses', async () => {
  await using pool = await startBackedUp();
  const { other_config, VIFs } = await pool.host.getRecord('VM', pool.vm.ref);
  const macs = await Promise.all(VIFs.map(async (ref) => (await pool.host.getRecord('VIF', ref)).MAC));
  await lose(pool);
  await pool.simulator.createVm({ name: 'twin', vifs: [], record: { other_config } });
  const restored = await restore(pool);
  expect(restored).toMatchObject({ identity: 'original', vmUuid: pool.vm.uuid });
  expect(restored.report.warnings).toMatchObject([{ code: 'MAC_SEED_DROPPED' }]);
  const made = await pool.host.getRecord('VM', restored.vmRef);
  expect(made.other_config['mac_seed']).not.toBe(other_config['mac_seed']);
  expect(await Promise.all(made.VIFs.map(async (ref) => (await pool.host.getRecord('VIF', ref)).MAC))).toEqual(macs);
});

describe('secrets', () => {
  const modes = async ({ folder, vm, first }: BackedUp) => {
    const points = join(folder, 'vms', vm.uuid, 'points', first.point.point);
    const files = [`${points}.metadata.json`, `${points}.metadata.xva`];
    return Promise.all(files.map(async (file) => (await stat(file)).mode & 0o777));
  };
  const contents = ({ simulator }: BackedUp) => [...simulator.world.tpmContents.values()];

  test('of a virtual TPM and the firmware are kept for the owner only, and come back', async () => {
    await using pool = await startBackedUp({ vm: { vtpm: 'c2VjcmV0' } });
    expect(pool.first.manifest.containsSecrets).toBe(true);
    expect(await modes(pool)).toEqual([0o600, 0o600]);
    await lose(pool);
    expect(contents(pool).length).toBeLessThanOrEqual(1); // that of the kept snapshot
    const { vmRef } = await restore(pool);
    const { VTPMs = [] } = await pool.host.getRecord('VM', vmRef);
    expect(VTPMs).toHaveLength(1);
    expect(pool.simulator.world.tpmContents.get(VTPMs[0]!)).toBe('c2VjcmV0');
  });

  test('are left out where that is asked for', async () => {
    await using pool = await startBackedUp({ vm: { vtpm: 'c2VjcmV0' }, backup: { vtpm: 'omit' } });
    expect(pool.first.manifest.containsSecrets).toBe(false);
    const archive = await pool.repository.openFile(pool.first.point, 'metadata-archive');
    const bytes = Buffer.alloc(archive.size);
    await archive.readInto(bytes, 0);
    await archive.close();
    const text = bytes.toString('latin1') + JSON.stringify(await pool.repository.readMetadata(pool.first.point));
    expect(text).not.toMatch(/c2VjcmV0|EFI-variables|VkFSUwEAAAAAAAAA/);
    const { vmRef } = await restore(pool);
    expect((await pool.host.getRecord('VM', vmRef)).VTPMs).toEqual([]);
  });
});

describe('odd machines', () => {
  test.each(['Suspended', 'Paused', 'Running', 'Halted'] as const)('%s: comes back halted', async (powerState) => {
    await using pool = await startBackedUp({ vm: { powerState, disks: [{ size: 4 * MIB }] } });
    const { vmRef } = await restore(pool);
    const made = await pool.host.getRecord('VM', vmRef);
    expect(made).toMatchObject({ power_state: 'Halted', suspend_VDI: 'OpaqueRef:NULL', is_a_template: false });
    await pool.host.callAsync('VM.start', [vmRef, false, false]);
  });

  test('without disks and interfaces', async () => {
    await using pool = await startBackedUp({ vm: { disks: [], vifs: [], cd: 'empty' } });
    const { vmRef, disks } = await restore(pool, { name: 'again' });
    expect(disks).toEqual({});
    expect(await pool.host.getRecord('VM', vmRef)).toMatchObject({ name_label: 'again', VIFs: [] });
  });

  test('a disc in the drive is found again; one that is gone leaves it empty', async () => {
    await using pool = await startBackedUp();
    const discOf = async (vmRef: string) => {
      const { VBDs } = await pool.host.getRecord('VM', vmRef);
      const vbds = await Promise.all(VBDs.map((ref) => pool.host.getRecord('VBD', ref)));
      return vbds.find(({ type }) => type === 'CD');
    };
    const source = await discOf(pool.vm.ref);
    const first = await restore(pool);
    expect(await discOf(first.vmRef)).toMatchObject({ VDI: source!.VDI, empty: false, mode: 'RO', userdevice: '3' });
    pool.simulator.world.updateObject('VDI', source!.VDI, { uuid: '99999999-0000-4000-8000-000000000002' });
    const second = await restore(pool);
    expect(await discOf(second.vmRef)).toMatchObject({ empty: true });
    expect(second.report.warnings).toMatchObject([{ code: 'DISC_NOT_FOUND' }]);
  });

  test('a disk that grew along the chain: each point in its own size', async () => {
    await using pool = await startBackedUp({ vm: { powerState: 'Halted' } });
    const { simulator, host, repository, vm } = pool;
    const [disk] = vm.disks;
    const moments = [{ point: pool.first.point, hash: await simulator.hashDisk(disk!.uuid), size: 8 * MIB }];
    for (const size of [12 * MIB, 20 * MIB]) {
      await host.callAsync('VDI.resize', [disk!.vdi, size]);
      await simulator.writeDisk(vm.uuid, '0', size - 70_000, randomBytes(70_000));
      const { point, manifest } = await backupVm(host, repository, { vm: vm.uuid });
      expect(manifest.disks[0]?.mode).toBe('delta');
      moments.push({ point, hash: await simulator.hashDisk(disk!.uuid), size });
    }
    for (const { point, hash, size } of moments) {
      const { disks } = await restoreVm(host, repository, { point });
      const made = await host.getRecord('VDI', disks[disk!.uuid]!);
      expect(made.virtual_size).toBe(size);
      expect(await simulator.hashDisk(made.uuid)).toBe(hash);
    }
  });

  test.each(['ext', 'iscsi'])('sizes that are no multiple of 2 MiB, onto %s', async (type) => {
    await using pool = await startBackedUp();
    const size = 5 * MIB + 512;
    const bytes = randomBytes(size);
    const { repository: real, first, vm } = pool;
    const repository: Repository = {
      ...real,
      async get(id, options) {
        const manifest = await real.get(id, options);
        return { ...manifest, disks: manifest.disks.map((disk) => ({ ...disk, size })) };
      },
      openDisk: async () => memoryDisk(bytes),
    };
    addSr(pool, type, 'Target');
    const { disks } = await restoreVm(pool.host, repository, { point: first.point, sr: 'Target' });
    const made = await pool.host.getRecord('VDI', disks[vm.disks[0]!.uuid]!);
    expect(made.virtual_size).toBe(type === 'ext' ? 6 * MIB : size);
    const verified = await verifyRestored(pool.host, repository, { point: first.point, disks });
    expect(verified.map(({ equal }) => equal)).toEqual([true, true]);
  });

  test('raw storage gets every byte, also the zeros', async () => {
    await using pool = await startBackedUp();
    addSr(pool, 'iscsi', 'Raw');
    const { disks, report } = await restore(pool, { sr: 'Raw' });
    expect(report.disks.map(({ transport, bytesMoved }) => [transport, bytesMoved]).sort()).toEqual([
      ['raw', 16 * MIB],
      ['raw', 8 * MIB],
    ]);
    for (const { uuid } of pool.vm.disks) {
      expect(await pool.simulator.hashDisk(disks[uuid]!)).toBe(await pool.simulator.hashDisk(uuid));
    }
  });

  test('marks stay behind, and a restored VM is nobody’s leftover', async () => {
    await using pool = await startBackedUp();
    const { vmRef, disks } = await restore(pool);
    expect(Object.keys((await pool.host.getRecord('VM', vmRef)).other_config)).not.toContain('xen-backup-sdk:owner');
    for (const [source, uuid] of Object.entries(disks)) {
      const [made, original] = [await pool.host.getRecord('VDI', uuid), await pool.host.getRecord('VDI', source)];
      expect(made.name_label).toBe(original.name_label);
      expect(Object.keys(made.other_config).filter((key) => key.startsWith('xen-backup-sdk'))).toEqual([]);
    }
    expect(await findLeftovers(pool.host)).toEqual([]);
  });
});

describe('before the VM gets its name', () => {
  test('its disks are read back, and one that differs is no restore', async () => {
    await using pool = await startBackedUp();
    const { report } = await restore(pool, { verify: true, start: true });
    expect(report.stages.map(({ name }) => name)).toContain('verify');
    const before = await everything(pool);
    let damaged = false;
    const onProgress = (event: { readonly kind: string; readonly stage?: string }) => {
      if (event.kind !== 'stage' || event.stage !== 'verify' || damaged) return;
      damaged = true;
      const made = [...pool.simulator.world.objects('VDI')].find(([, vdi]) =>
        vdi.name_label.includes('xen-backup-sdk'),
      );
      void pool.simulator.writeDisk(made![0], undefined, 4096, new Uint8Array([1]));
    };
    await expect(restore(pool, { verify: true, onProgress })).rejects.toMatchObject({
      code: 'RESTORE_MISMATCH',
      facts: { firstDifference: 4096 },
    });
    expect(await everything(pool)).toEqual(before);
  });

  test('it starts where that is asked for; one that does not is a warning', async () => {
    await using pool = await startBackedUp();
    const { vmRef } = await restore(pool, { start: true });
    expect(await pool.host.getRecord('VM', vmRef)).toMatchObject({ power_state: 'Running' });
    pool.simulator.fault('call-error', { method: 'VM.start', code: 'HOST_NOT_ENOUGH_FREE_MEMORY', params: ['1', '0'] });
    const { report, vmRef: second } = await restore(pool, { start: true });
    expect(report.warnings).toContainEqual(expect.objectContaining({ code: 'VM_NOT_STARTED' }));
    expect(await pool.host.getRecord('VM', second)).toMatchObject({ power_state: 'Halted' });
  });
});
