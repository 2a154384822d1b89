import { expect } from 'vitest';
import { planRestore, restoreVm } from '../../src/restore/index.ts';
import { openXva, xvaVm } from '../../src/xva/index.ts';
import { namesOf, type Road, startRoad } from './support/road.ts';
import { group, row } from './support/row.ts';

/** What must come back as it was. */
async function configurationOf({ host }: Road, uuid: string) {
  const vm = await host.getRecord('VM', uuid);
  const vifs = await Promise.all(vm.VIFs.map((ref) => host.getRecord('VIF', ref)));
  const vbds = await Promise.all(vm.VBDs.map((ref) => host.getRecord('VBD', ref)));
  const fields = vm as unknown as Record<string, unknown>;
  return {
    name: vm.name_label,
    memory: [fields['memory_static_min'], fields['memory_static_max'], fields['memory_dynamic_max']],
    cpus: [fields['VCPUs_max'], fields['VCPUs_at_startup'], fields['VCPUs_params']],
    boot: [fields['HVM_boot_policy'], fields['HVM_boot_params'], fields['platform'], fields['NVRAM']],
    nics: vifs
      .map(({ device, MAC, MTU, network }) => ({ device, MAC, MTU, network }))
      .sort((a, b) => +a.device - +b.device),
    drives: vbds
      .map(({ userdevice, type, mode, bootable, empty }) => ({ userdevice, type, mode, bootable, empty }))
      .sort((a, b) => +a.userdevice - +b.userdevice),
  };
}

/** Takes the VM and its disks off the host, as somebody did by mistake. */
async function lose({ host, vm }: Road): Promise<void> {
  const disks = await host.listDisks(vm.ref);
  await host.callAsync('VM.hard_shutdown', [vm.ref]);
  await host.callAsync('VM.destroy', [vm.ref]);
  for (const { vdi } of disks) await host.callAsync('VDI.destroy', [vdi.ref]);
}

group('Restore', () => {
  row('S28', 'an imported XVA is turned from a template into a VM and renamed', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const { host, repository } = road;
    const { point } = await road.backup({ strategy: 'image' });
    await using image = await openXva(await repository.openFile(point, 'image'));
    expect(xvaVm(image.metadata).isTemplate).toBe(true); // as a host exports a snapshot
    const before = (await host.listRecords('VM')).length;
    const { vmUuid } = await restoreVm(host, repository, { point, name: 'web again' });
    const made = await host.getRecord('VM', vmUuid);
    expect(made).toMatchObject({ is_a_template: false, is_a_snapshot: false, name_label: 'web again' });
    expect((await host.listRecords('VM')).length).toBe(before + 1);
  });
  row('S28', 'a failure between import and renaming leaves nothing, or what can be found', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const { host, repository, simulator } = road;
    const { point } = await road.backup({ strategy: 'image' });
    const known = new Set((await host.listRecords('VM')).map(({ uuid }) => uuid));
    const disks = (await host.listRecords('VDI')).length;
    const code = 'INTERNAL_ERROR';
    simulator.fault('call-error', { method: 'VBD.destroy', code, params: ['no'] });
    await expect(restoreVm(host, repository, { point })).rejects.toMatchObject({ xapiCode: code });
    expect((await host.listRecords('VM')).filter(({ uuid }) => !known.has(uuid))).toEqual([]);
    expect((await host.listRecords('VDI')).length).toBe(disks);

    simulator.fault('call-error', { method: 'VBD.destroy', code, params: ['no'] });
    simulator.fault('call-error', { method: 'VM.destroy', code, params: ['no'], times: 20 });
    const error: unknown = await restoreVm(host, repository, { point }).catch((reason: unknown) => reason);
    const [left] = (await host.listRecords('VM')).filter(({ uuid }) => !known.has(uuid));
    expect(left!.name_label).toMatch(/^web \(restored .*\) \[xen-backup-sdk [0-9a-f]+\]$/);
    expect(JSON.parse(left!.other_config['xen-backup-sdk:owner']!)).toMatchObject({
      uuid: left!.uuid,
      state: 'working',
    });
    expect(error).toMatchObject({
      receipt: expect.arrayContaining([expect.objectContaining({ uuid: left!.uuid, state: 'left' })]),
    });
  });

  for (const strategy of ['changed-blocks', 'image'] as const) {
    row(
      'S29',
      `if a VM with the same UUID is present, restore as a new VM with new MACs (${strategy})`,
      async ({ profile }) => {
        await using road = await startRoad(profile, strategy !== 'image');
        const { host, repository, vm } = road;
        const { point } = await road.backup({ strategy });
        const [before, hashes] = [await configurationOf(road, vm.uuid), await road.hashes()];
        const plan = await planRestore(host, repository, { point });
        expect(plan).toMatchObject({ identity: 'new', identityReason: expect.stringContaining('is on the host') });
        expect(plan.nics.map(({ macPolicy }) => macPolicy)).toEqual(['generate', 'generate']);

        const restored = await restoreVm(host, repository, { point, name: 'web again' });
        expect(restored.vmUuid).not.toBe(vm.uuid);
        const made = await configurationOf(road, restored.vmUuid);
        const original = new Set(before.nics.map(({ MAC }) => MAC));
        expect(made.nics).toHaveLength(2);
        for (const { MAC } of made.nics) expect(original).not.toContain(MAC);
        expect(new Set(made.nics.map(({ MAC }) => MAC)).size).toBe(2);
        expect(made.name).toBe('web again');
        expect([await configurationOf(road, vm.uuid), await road.hashes()]).toEqual([before, hashes]);
      },
    );
    row('S29', `a VM that was restored from it counts as present (${strategy})`, async ({ profile }) => {
      await using road = await startRoad(profile, strategy !== 'image');
      const { point } = await road.backup({ strategy });
      const first = await restoreVm(road.host, road.repository, { point });
      await lose(road);
      const plan = await planRestore(road.host, road.repository, { point });
      expect(plan.identity).toBe('new');
      expect(plan.identityReason).toContain(first.vmUuid);
    });

    row('S30', `otherwise restore the original configuration including MACs (${strategy})`, async ({ profile }) => {
      await using road = await startRoad(profile, strategy !== 'image');
      const { host, repository, simulator, vm } = road;
      const [before, hashes] = [await configurationOf(road, vm.uuid), await road.hashes()];
      const { point } = await road.backup({ strategy });
      await lose(road);
      expect(await planRestore(host, repository, { point })).toMatchObject({
        identity: 'original',
        name: 'web',
        conflicts: [],
      });
      const restored = await restoreVm(host, repository, { point });
      expect(restored.vmUuid).toBe(vm.uuid);
      expect(await configurationOf(road, restored.vmUuid)).toEqual(before);
      for (const [source, made] of Object.entries(restored.disks))
        expect(await simulator.hashDisk(made)).toBe(hashes[source]);
      const keys = Object.keys((await host.getRecord('VM', vm.uuid)).other_config);
      expect(keys.filter((key) => key.startsWith('xen-backup-sdk'))).toEqual(['xen-backup-sdk:restored-from']);
    });
  }
  row('S30', 'a MAC used by another VM is a conflict before anything is made', async ({ profile }) => {
    await using road = await startRoad(profile);
    const { host, repository, simulator, vm } = road;
    const { nics } = await configurationOf(road, vm.uuid);
    const { point } = await road.backup();
    await lose(road);
    await simulator.createVm({ name: 'thief', vifs: [{ mac: nics[0]!.MAC }] });
    const plan = await planRestore(host, repository, { point });
    expect(plan.conflicts).toEqual([
      expect.objectContaining({ code: 'MAC_IN_USE', message: expect.stringContaining('thief') }),
    ]);
    road.asked();
    await expect(restoreVm(host, repository, { point })).rejects.toMatchObject({ code: 'PLAN_CONFLICT' });
    expect(namesOf(road.asked()).filter((name) => /create|PUT/.test(name))).toEqual([]);
  });
});
