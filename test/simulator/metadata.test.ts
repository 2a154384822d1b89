import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { byteReader } from '../../src/bytes/index.ts';
import { readOva } from '../../src/simulator/archive-stream.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { deriveMac } from '../../src/simulator/mac.ts';
import { type ArchiveObject, encodeOva, type OvaArchive } from '../../src/simulator/ova-xml.ts';
import { encodeTarHeader, TAR_END, tarPadding } from '../../src/simulator/tar-v7.ts';
import { chunksOf } from '../support/sources.ts';
import { logIn, type RpcSession, send, type TaskRecord } from './client.ts';

const MIB = 1024 * 1024;
const NULL_REF = 'OpaqueRef:NULL';

let simulator: Simulator;
let rpc: RpcSession;

beforeEach(async () => {
  simulator = await startSimulator();
  onTestFinished(() => simulator.close());
  rpc = await logIn(simulator);
});

async function exported(query: Readonly<Record<string, string>>): Promise<Uint8Array> {
  const task_id = await rpc.call<string>('task.create', 'export', '');
  const search = new URLSearchParams({ session_id: rpc.session, task_id, ...query });
  const answer = await send(simulator, `/export_metadata?${search}`);
  expect(answer.status).toBe(200);
  expect(answer.headers['content-length']).toBe(String(answer.body.byteLength));
  expect(await rpc.endOf(task_id)).toMatchObject({ status: 'success' });
  return answer.body;
}

async function decoded(bytes: Uint8Array): Promise<OvaArchive> {
  await using input = byteReader(chunksOf(bytes));
  return await readOva(input);
}

function packed(archive: OvaArchive): Uint8Array {
  const xml = new TextEncoder().encode(encodeOva(archive));
  const header = encodeTarHeader({ name: 'ova.xml', size: xml.byteLength });
  return new Uint8Array(Buffer.concat([header, xml, new Uint8Array(tarPadding(xml.byteLength)), TAR_END]));
}

/** The archive with some records changed; `null` leaves an object out. */
function edited(archive: OvaArchive, edit: (object: ArchiveObject) => Record<string, unknown> | null): OvaArchive {
  const objects = archive.objects.flatMap((object) => {
    const changes = edit(object);
    if (changes === null) return [];
    return [{ ...object, snapshot: { ...object.snapshot, ...(changes as ArchiveObject['snapshot']) } }];
  });
  return { ...archive, objects };
}

async function imported(
  body: Uint8Array,
  query: Readonly<Record<string, string>> = {},
): Promise<{
  readonly task: TaskRecord & { readonly other_config: Record<string, string> };
  readonly vms: readonly string[];
}> {
  const task_id = await rpc.call<string>('task.create', 'import', '');
  const search = new URLSearchParams({ session_id: rpc.session, task_id, ...query });
  const headers = { 'content-length': String(body.byteLength) };
  const answer = await send(simulator, `/import_metadata?${search}`, { method: 'PUT', headers, body });
  expect(answer.status).toBe(200);
  await rpc.endOf(task_id);
  const task = await rpc.call<TaskRecord & { readonly other_config: Record<string, string> }>(
    'task.get_record',
    task_id,
  );
  return { task, vms: [...task.result.matchAll(/OpaqueRef:[0-9a-f-]+/g)].map(([ref]) => ref) };
}

/** A machine with two disks and all that an archive can hold. */
async function machine(powerState: 'Halted' | 'Running' = 'Halted') {
  return simulator.createVm({
    name: 'original',
    powerState,
    disks: [{ size: 4 * MIB }, { size: 8 * MIB }],
    vifs: [{}, { mac: '02:11:22:33:44:55' }],
    cd: 'empty',
    vtpm: 'c2VjcmV0',
    record: {
      tags: ['a', 'b'],
      NVRAM: { 'EFI-variables': 'AAAA' },
      blocked_operations: { pool_migrate: 'no' },
      HVM_boot_policy: 'BIOS order',
      HVM_boot_params: { firmware: 'uefi' },
      order: 3,
      version: 0,
    },
  });
}

const classes = ({ objects }: OvaArchive) => [...new Set(objects.map((object) => object.class))];
const ofClass = ({ objects }: OvaArchive, name: string) => objects.filter((object) => object.class === name);
/** How many objects of each class the pool has. */
const counts = () =>
  (['VM', 'VBD', 'VIF', 'VDI', 'VTPM', 'network', 'VM_metrics'] as const).map(
    (name) => [...simulator.world.objects(name)].length,
  );

describe('GET /export_metadata', () => {
  test('holds the machine and all it needs, in the order of a host, with references inside the archive', async () => {
    const vm = await machine('Running');
    const archive = await decoded(await exported({ uuid: vm.uuid }));
    expect(archive.version).toMatchObject({
      xapi_major: '25',
      xapi_minor: '33',
      export_vsn: '2',
      hostname: 'localhost',
    });
    expect(classes(archive)).toEqual([
      'host',
      'VM',
      'VM_metrics',
      'VM_guest_metrics',
      'VBD',
      'VIF',
      'network',
      'VDI',
      'SR',
      'VTPM',
    ]);
    const [record] = ofClass(archive, 'VM');
    expect(record?.snapshot).toMatchObject({
      uuid: vm.uuid,
      power_state: 'Running',
      blocked_operations: { pool_migrate: 'no' },
      allowed_operations: [],
      consoles: [],
      tags: ['a', 'b'],
      NVRAM: { 'EFI-variables': 'AAAA' },
    });
    const ids = new Set(archive.objects.map(({ id }) => id));
    expect(ids.size).toBe(archive.objects.length);
    for (const vbd of ofClass(archive, 'VBD')) {
      expect(ids).toContain(vbd.snapshot['VM']);
      if (vbd.snapshot['type'] === 'Disk') expect(ids).toContain(vbd.snapshot['VDI']);
      else expect(vbd.snapshot['VDI']).toBe(NULL_REF);
    }
    expect(ofClass(archive, 'SR')[0]?.snapshot['PBDs']).toEqual([]);
    expect(ofClass(archive, 'VTPM')[0]?.snapshot).toMatchObject({
      "vTPM'_content": 'c2VjcmV0',
      "vTPM'_VM": record?.id,
    });
    const again = await decoded(await exported({ ref: vm.ref }));
    expect(again.objects[0]?.id).not.toBe(archive.objects[0]?.id);
  });

  test('has the snapshots unless told otherwise', async () => {
    const vm = await machine();
    await rpc.callAsync('VM.snapshot', vm.ref, 'snap');
    const archive = await decoded(await exported({ ref: vm.ref }));
    const [live, snapshot] = ofClass(archive, 'VM');
    expect(snapshot?.snapshot).toMatchObject({ is_a_snapshot: true, name_label: 'snap', snapshot_of: live?.id });
    const without = await decoded(await exported({ ref: vm.ref, export_snapshots: 'false' }));
    expect(ofClass(without, 'VM').map(({ snapshot: { name_label } }) => name_label)).toEqual(['original']);
    expect(ofClass(without, 'VM')[0]?.snapshot['snapshots']).toEqual([]);
  });

  test('leaves devices out and takes parents of disks in, when asked', async () => {
    const vm = await machine();
    await simulator.writeDisk(vm.disks[0]?.vdi ?? '', undefined, 0, new Uint8Array(512));
    await rpc.callAsync('VM.snapshot', vm.ref, 'snap');
    const without = await decoded(await exported({ ref: vm.ref, excluded_device_types: 'vif,vbd,vtpm' }));
    expect(classes(without)).toEqual(['VM', 'VM_metrics']);
    const query = { ref: vm.ref, export_snapshots: 'false' };
    const plain = await decoded(await exported(query));
    const parents = await decoded(await exported({ ...query, include_vhd_parents: 'true' }));
    expect(ofClass(plain, 'VDI').length).toBe(2);
    expect(ofClass(parents, 'VDI').map(({ snapshot }) => snapshot['name_label'])).toContain('base copy');
  });

  test('has all machines but default templates, with the control domain unless told otherwise', async () => {
    await machine();
    simulator.world.addObject('VM', { name_label: 'template', is_a_template: true, is_default_template: true });
    const names = async (query: Record<string, string>) =>
      ofClass(await decoded(await exported({ all: 'true', ...query })), 'VM').map(
        ({ snapshot }) => snapshot['name_label'],
      );
    expect(await names({})).toEqual([expect.stringContaining('Control domain'), 'original']);
    expect(await names({ include_dom0: 'false' })).toEqual(['original']);
  });

  test('of a machine that is not there is a bare 500, and the task stays pending', async () => {
    const task = await rpc.call<string>('task.create', 'export', '');
    for (const which of ['ref=OpaqueRef:no', 'uuid=no', '']) {
      const answer = await send(simulator, `/export_metadata?session_id=${rpc.session}&task_id=${task}&${which}`);
      expect(answer.status).toBe(500);
    }
    expect(await rpc.call('task.get_status', task)).toBe('pending');
  });
});

describe('PUT /import_metadata', () => {
  test('plain: a new machine on the same disks, with identities of its own', async () => {
    const vm = await machine();
    const { task, vms } = await imported(await exported({ ref: vm.ref }));
    expect(task).toMatchObject({ status: 'success', other_config: { object_creation: 'complete' } });
    const { world } = simulator;
    const [ref = ''] = vms;
    expect(vms.length).toBe(1);
    const [old, made] = [world.getObject('VM', vm.ref), world.getObject('VM', ref)];
    expect(made).toMatchObject({
      name_label: 'original',
      power_state: 'Halted',
      version: 0,
      tags: ['a', 'b'],
      NVRAM: { 'EFI-variables': 'AAAA' },
      blocked_operations: {},
      order: 3,
      platform: { 'device-model': expect.stringContaining('qemu-upstream') },
    });
    expect(made.uuid).not.toBe(old.uuid);
    expect(made.generation_id).not.toBe(old.generation_id);
    const seed = made.other_config['mac_seed'] ?? '';
    expect(seed).not.toBe(old.other_config['mac_seed']);
    expect(made.other_config['import_task']).toMatch(/^OpaqueRef:/);
    const vifs = made.VIFs.map((vif) => world.getObject('VIF', vif));
    expect(vifs.map(({ MAC }) => MAC)).toEqual([deriveMac(seed, 0), deriveMac(seed, 1)]);
    expect(
      vifs.every(({ network, MAC_autogenerated }) => network === simulator.refs.network && MAC_autogenerated),
    ).toBe(true);
    const vbds = made.VBDs.map((vbd) => world.getObject('VBD', vbd));
    expect(vbds.map(({ type, VDI, empty }) => [type, VDI, empty])).toEqual([
      ['Disk', vm.disks[0]?.vdi, false],
      ['Disk', vm.disks[1]?.vdi, false],
      ['CD', NULL_REF, true],
    ]);
    expect(vbds.every(({ currently_attached }) => !currently_attached)).toBe(true);
    expect(world.tpmContents.get(made.VTPMs[0] ?? '')).toBe('c2VjcmV0');
  });

  test('derives addresses as hosts do: local, not multicast, the same for the same seed and device', () => {
    expect(deriveMac('seed', 0)).toMatch(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
    expect(deriveMac('seed', 0)).not.toBe(deriveMac('seed', 1));
    for (let device = 0; device < 8; device++) {
      expect(Number.parseInt(deriveMac('other seed', device).slice(0, 2), 16) & 3).toBe(2);
    }
  });

  test('restore: brings a machine back as itself once it is gone', async () => {
    const vm = await machine();
    const before = simulator.world.getObject('VM', vm.ref);
    const vifs = before.VIFs.map((vif) => simulator.world.getObject('VIF', vif));
    const archive = await exported({ ref: vm.ref });
    await rpc.call('VM.destroy', vm.ref);
    const { vms } = await imported(archive, { restore: 'true' });
    const made = simulator.world.getObject('VM', vms[0] ?? '');
    expect(made).toMatchObject({ uuid: vm.uuid, version: 1 });
    expect(made.other_config['mac_seed']).toBe(before.other_config['mac_seed']);
    const now = made.VIFs.map((vif) => simulator.world.getObject('VIF', vif));
    expect(now.map(({ uuid, MAC }) => [uuid, MAC])).toEqual(vifs.map(({ uuid, MAC }) => [uuid, MAC]));
  });

  test('restore over the machine itself: only a newer one, only while it is halted, unless forced', async () => {
    const vm = await machine();
    const bytes = await exported({ ref: vm.ref });
    const archive = edited(await decoded(bytes), (object) => (object.class === 'VTPM' ? null : {}));
    const newer = packed(edited(archive, (object) => (object.class === 'VM' ? { version: 1 } : {})));
    const run = async (body: Uint8Array, query: Record<string, string> = {}) =>
      (await imported(body, { restore: 'true', ...query })).task.error_info;
    expect(await run(bytes)).toEqual(['VM_TO_IMPORT_IS_NOT_NEWER_VERSION', vm.ref, '0', '0']);
    expect(await run(newer)).toEqual([]);
    const { world } = simulator;
    expect(world.findObject('VM', vm.ref)).toBeUndefined();
    const ref = world.refByUuid('VM', vm.uuid);
    expect(world.getObject('VM', ref)).toMatchObject({ version: 2 });
    expect(world.getObject('VDI', vm.disks[0]?.vdi ?? '').VBDs.length).toBe(1);
    expect(await run(packed(archive), { force: 'true' })).toEqual([]);
    await rpc.call('VM.start', world.refByUuid('VM', vm.uuid), false, false);
    expect((await run(newer))[0]).toBe('VM_BAD_POWER_STATE');
    const { task, vms } = await imported(newer, { restore: 'true', force: 'true' });
    expect(task.status).toBe('success');
    expect(vms).toEqual([]);
  });

  test('restore beside another machine with the same seed is refused, beside its own snapshots not', async () => {
    const vm = await machine();
    const snapshot = (await rpc.callAsync('VM.snapshot', vm.ref, 'snap')).slice('<value>'.length, -'</value>'.length);
    const seed = simulator.world.getObject('VM', vm.ref).other_config['mac_seed'];
    const asXva = edited(await decoded(await exported({ ref: snapshot })), (object) =>
      object.class === 'VM' ? { is_a_snapshot: false, snapshot_of: NULL_REF } : object.class === 'VTPM' ? null : {},
    );
    const refused = await imported(packed(asXva), { restore: 'true' });
    expect(refused.task.error_info).toEqual(['DUPLICATE_MAC_SEED', seed]);
    const plain = await imported(packed(asXva));
    expect(simulator.world.getObject('VM', plain.vms[0] ?? '').is_a_template).toBe(true);
    const live = await exported({ ref: vm.ref, export_snapshots: 'false' });
    await rpc.call('VM.destroy', vm.ref);
    // The seed is that of its own snapshot now, which still knows whose it is.
    expect((await imported(live, { restore: 'true' })).task.error_info).toEqual([]);
  });

  test('snapshots come with their machine and are linked to it; the result names the machine only', async () => {
    const vm = await machine();
    await rpc.callAsync('VM.snapshot', vm.ref, 'snap');
    const { vms, task } = await imported(await exported({ ref: vm.ref }));
    expect(task.error_info).toEqual([]);
    expect(vms.length).toBe(1);
    const { world } = simulator;
    const [snapshot = ''] = world.getObject('VM', vms[0] ?? '').snapshots;
    expect(world.getObject('VM', snapshot)).toMatchObject({
      name_label: 'snap',
      is_a_snapshot: true,
      snapshot_of: vms[0],
    });
  });

  test('finds disks by the map, else by SR and location, else by maps_to; what is missing is named', async () => {
    const vm = await machine();
    const [first, second] = vm.disks;
    const bytes = await exported({ ref: vm.ref });
    const { world } = simulator;
    const target = await simulator.createVm({ powerState: 'Halted', disks: [{ size: 4 * MIB }] });
    const mapped = await imported(bytes, { [`vdi:${first?.uuid}`]: target.disks[0]?.uuid ?? '' });
    const disksOf = (ref: string) => world.getObject('VM', ref).VBDs.map((vbd) => world.getObject('VBD', vbd).VDI);
    expect(disksOf(mapped.vms[0] ?? '')).toEqual([target.disks[0]?.vdi, second?.vdi, NULL_REF]);
    const archive = await decoded(bytes);
    const elsewhere = (changes: Record<string, unknown>) =>
      packed(
        edited(archive, (object) => (object.class === 'VDI' && object.snapshot['uuid'] === first?.uuid ? changes : {})),
      );
    const before = counts();
    const lost = await imported(elsewhere({ location: 'nowhere' }));
    expect(lost.task.error_info).toEqual(['VDI_LOCATION_MISSING', simulator.refs.defaultSr, 'nowhere']);
    const noSr = await imported(packed(edited(archive, (object) => (object.class === 'SR' ? { uuid: 'other' } : {}))));
    expect(noSr.task.error_info).toEqual(['VDI_CONTENT_ID_MISSING']);
    expect(counts()).toEqual(before);
    const forced = await imported(elsewhere({ location: 'nowhere' }), { force: 'true' });
    expect(disksOf(forced.vms[0] ?? '')).toEqual([second?.vdi, NULL_REF]);
    const maps_to = first?.uuid ?? '';
    world.updateObject('VDI', target.disks[0]?.vdi ?? '', { other_config: { maps_to } });
    const byKey = await imported(elsewhere({ location: 'nowhere' }));
    expect(disksOf(byKey.vms[0] ?? '')).toEqual([target.disks[0]?.vdi, second?.vdi, NULL_REF]);
  });

  test('finds networks by name, else by bridge, else makes one', async () => {
    const vm = await machine();
    const archive = await decoded(await exported({ ref: vm.ref }));
    const run = async (changes: Record<string, unknown>) => {
      const { vms } = await imported(packed(edited(archive, (object) => (object.class === 'network' ? changes : {}))));
      const [vif = ''] = simulator.world.getObject('VM', vms[0] ?? '').VIFs;
      return simulator.world.getObject('VIF', vif).network;
    };
    expect(await run({ bridge: 'other' })).toBe(simulator.refs.network);
    expect(await run({ name_label: 'other' })).toBe(simulator.refs.network);
    const made = await run({ name_label: 'other', bridge: 'other', MTU: 9000 });
    expect(simulator.world.getObject('network', made)).toMatchObject({ name_label: 'other', MTU: 9000 });
  });

  test('dry_run changes nothing, and tells what would fail', async () => {
    const vm = await machine();
    const bytes = await exported({ ref: vm.ref });
    const before = counts();
    const { task } = await imported(bytes, { dry_run: 'true' });
    expect(task).toMatchObject({ status: 'success', result: '' });
    const restore = await imported(bytes, { dry_run: 'true', restore: 'true' });
    expect(restore.task.error_info[0]).toBe('VM_TO_IMPORT_IS_NOT_NEWER_VERSION');
    expect(counts()).toEqual(before);
    expect(simulator.world.findObject('VM', vm.ref)).toBeDefined();
  });

  test('takes back in reverse what it has made when an object fails, and keeps it with force', async () => {
    const vm = await machine();
    const archive = await decoded(await exported({ ref: vm.ref }));
    const broken = packed(edited(archive, (object) => (object.class === 'VIF' ? { VM: 'Ref:none' } : {})));
    const before = counts();
    const failed = await imported(broken);
    expect(failed.task.error_info).toEqual(['IMPORT_ERROR_FAILED_TO_FIND_OBJECT', 'Ref:none']);
    expect(counts()).toEqual(before);
    await imported(broken, { force: 'true' });
    expect(counts()).not.toEqual(before);
  });

  test('refuses archives of newer hosts, and takes those of older ones', async () => {
    const vm = await machine();
    const archive = await decoded(await exported({ ref: vm.ref }));
    const run = async (xapi_major: string, xapi_minor: string) =>
      (await imported(packed({ ...archive, version: { ...archive.version, xapi_major, xapi_minor } }))).task
        .error_info[0];
    expect(await run('25', '34')).toBe('IMPORT_INCOMPATIBLE_VERSION');
    expect(await run('26', '0')).toBe('IMPORT_INCOMPATIBLE_VERSION');
    expect(await run('', 'x')).toBe('IMPORT_INCOMPATIBLE_VERSION');
    expect(await run('25', '32')).toBeUndefined();
    expect(await run('1', '249')).toBeUndefined();
  });

  test('refuses what it must: no vTPM twice or where it is restricted, no suspended machine without its memory', async () => {
    const vm = await machine();
    const archive = await decoded(await exported({ ref: vm.ref }));
    const { world, refs } = simulator;
    const fresh = packed(
      edited(archive, ({ class: name }) => (name === 'VM' ? { uuid: 'fresh', other_config: {} } : {})),
    );
    const twice = await imported(fresh, { restore: 'true' });
    expect(twice.task.error_info).toEqual(['IMPORT_ERROR', expect.stringContaining('already exists')]);
    const suspended = packed(edited(archive, ({ class: name }) => (name === 'VM' ? { power_state: 'Suspended' } : {})));
    expect((await imported(suspended)).task.error_info[0]).toBe('IMPORT_ERROR_FAILED_TO_FIND_OBJECT');
    const forced = await imported(suspended, { force: 'true' });
    expect(world.getObject('VM', forced.vms[0] ?? '').power_state).toBe('Halted');
    const { restrictions } = world.getObject('pool', refs.pool);
    world.updateObject('pool', refs.pool, { restrictions: { ...restrictions, restrict_vtpm: 'true' } });
    expect((await imported(packed(archive))).task.error_info).toEqual(['FEATURE_RESTRICTED', 'VTPM']);
  });

  test('an attached disk that is missing fails the import; a machine of a known default template is that template', async () => {
    const vm = await machine('Running');
    const archive = await decoded(await exported({ ref: vm.ref }));
    const noDisks = packed(edited(archive, ({ class: name }) => (name === 'VDI' ? null : {})));
    expect((await imported(noDisks)).task.error_info).toEqual(['IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND']);
    const known = simulator.world.addObject('VM', {
      name_label: 'Debian',
      is_a_template: true,
      is_default_template: true,
    });
    const template = packed(
      edited(archive, ({ class: name }) => (name === 'VM' ? { name_label: 'Debian', is_default_template: true } : {})),
    );
    const { vms } = await imported(template);
    expect(vms).toEqual([known]);
    expect(simulator.world.getObject('VM', known).VBDs).toEqual([]);
  });

  test("refuses a body in HTTP chunks with 403, and what is no archive with the host's errors", async () => {
    const task_id = await rpc.call<string>('task.create', 'import', '');
    const path = `/import_metadata?session_id=${rpc.session}&task_id=${task_id}`;
    const answer = await send(simulator, path, { method: 'PUT', headers: { 'transfer-encoding': 'chunked' } });
    expect(answer.status).toBe(403);
    expect((await rpc.endOf(task_id)).error_info).toEqual(['IMPORT_ERROR_CANNOT_HANDLE_CHUNKED']);
    expect((await imported(new Uint8Array(100))).task.error_info).toEqual(['IMPORT_ERROR_PREMATURE_EOF']);
    expect((await imported(new Uint8Array(5000).fill(1))).task.error_info[0]).toBe('IMPORT_ERROR');
  });
});
