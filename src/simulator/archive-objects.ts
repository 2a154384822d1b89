import { type AnyRecord, type ClassName, fieldsOf, newRecord } from './data-model.ts';
import type { XapiValue } from './field-spec.ts';
import type { ArchiveObject } from './ova-xml.ts';
import { NULL_REF, type RecordOf, type World } from './world.ts';

/** What goes into an archive beside the machines themselves. */
export interface ArchiveScope {
  /** With their snapshots, and what makes them snapshots? An XVA is without. */
  readonly snapshots: boolean;
  /** With the records of the disks under the disks? */
  readonly vhdParents: boolean;
  /** Kinds of device to leave out: `vif`, `vbd`, `vgpu`, `vtpm`. */
  readonly excludedDevices: ReadonlySet<string>;
  /** Keep the power state, and with it the suspended memory? An XVA does so only when asked. */
  readonly powerState: boolean;
}

type ArchiveClass = Extract<
  ClassName,
  'host' | 'VM' | 'VM_metrics' | 'VM_guest_metrics' | 'VBD' | 'VIF' | 'network' | 'VDI' | 'SR' | 'VGPU' | 'VTPM'
>;

const ORDER: readonly ArchiveClass[] = [
  'host',
  'VM',
  'VM_metrics',
  'VM_guest_metrics',
  'VBD',
  'VIF',
  'network',
  'VDI',
  'SR',
  'VGPU',
  'VTPM',
];

/** Fields that an archive has empty, whatever the object holds. */
const BLANK = [
  'allowed_operations',
  'current_operations',
  'consoles',
  'crash_dumps',
  'blobs',
  'PBDs',
  'PIFs',
  'metrics',
];
/** Of a host little more is told than who it is. */
const HOST_FIELDS = ['uuid', 'name_label', 'name_description', 'hostname', 'address', 'other_config'] as const;
/** References that are left as they are, to objects of this pool. */
const LIVE = new Set(['VDI.snapshot_of', 'VDI.parent', 'VM.appliance', 'VM.suspend_SR', 'VM.protection_policy']);
/** What makes a machine a snapshot. */
const SNAPSHOT_FIELDS = ['is_a_snapshot', 'snapshot_of', 'snapshots', 'snapshot_time', 'parent', 'children'] as const;

let lastId = 0; // of the whole process, never reset: as on a host, nobody can count on `Ref:0`

/**
 * The records of machines and all they need, in the order of a host's archive.
 *
 * @see xapi-project/xen-api `ocaml/xapi/export.ml` `update_table`, `make_all`
 */
export function archiveObjects(world: World, vmRefs: Iterable<string>, scope: ArchiveScope): readonly ArchiveObject[] {
  const found = new Map<ArchiveClass, Map<string, string>>(ORDER.map((name) => [name, new Map()]));
  for (const ref of vmRefs) addVm(ref);
  const ids = new Map([...found.values()].flatMap((table) => [...table]));
  return ORDER.flatMap((name) =>
    [...(found.get(name) ?? [])].map(([ref, id]) => ({
      class: name,
      id,
      snapshot: archived(world, name, ref, ids, scope),
    })),
  );

  /** Takes an object in; false if it is there already or does not exist. */
  function add(name: ArchiveClass, ref: string): boolean {
    const table = found.get(name);
    if (table === undefined || table.has(ref) || world.findObject(name, ref) === undefined) return false;
    table.set(ref, `Ref:${lastId++}`);
    return true;
  }

  function addVm(ref: string): void {
    if (!add('VM', ref)) return;
    const vm = world.getObject('VM', ref);
    add('host', vm.resident_on);
    add('host', vm.affinity);
    add('VM_metrics', vm.metrics);
    add('VM_guest_metrics', vm.guest_metrics);
    if (!scope.excludedDevices.has('vbd')) vm.VBDs.forEach(addVbd);
    if (!scope.excludedDevices.has('vif')) vm.VIFs.forEach(addVif);
    if (!scope.excludedDevices.has('vgpu')) for (const vgpu of vm.VGPUs) add('VGPU', vgpu);
    if (!scope.excludedDevices.has('vtpm')) for (const vtpm of vm.VTPMs) add('VTPM', vtpm);
    if (scope.powerState) addVdi(vm.suspend_VDI);
    if (scope.snapshots) vm.snapshots.forEach(addVm);
  }

  function addVbd(ref: string): void {
    if (add('VBD', ref)) addVdi(world.getObject('VBD', ref).VDI);
  }

  function addVif(ref: string): void {
    if (add('VIF', ref)) add('network', world.getObject('VIF', ref).network);
  }

  function addVdi(ref: string): void {
    if (!add('VDI', ref)) return;
    const { SR, sm_config } = world.getObject('VDI', ref);
    add('SR', SR);
    const below = sm_config['vhd-parent'];
    if (!scope.vhdParents || below === undefined) return;
    for (const [parent, { uuid }] of world.objects('VDI')) if (uuid === below) addVdi(parent);
  }
}

function archived(
  world: World,
  name: ArchiveClass,
  ref: string,
  ids: ReadonlyMap<string, string>,
  scope: ArchiveScope,
): AnyRecord {
  const fields = { ...(world.getObject(name, ref) as AnyRecord) };
  if (name === 'host') return pick(fields, HOST_FIELDS);
  const defaults = newRecord(name, {}) as AnyRecord;
  for (const field of BLANK) {
    const keep = field === 'metrics' && name === 'VM';
    if (Object.hasOwn(fields, field) && !keep) fields[field] = defaults[field] ?? '';
  }
  if (name === 'VM') blankVm(fields, defaults, scope);
  for (const [field, { kind }] of Object.entries(fieldsOf(name))) {
    const value = fields[field];
    if (LIVE.has(`${name}.${field}`) || value === undefined) continue;
    if (kind === 'ref') fields[field] = ids.get(String(value)) ?? NULL_REF;
    else if (kind === 'refs') fields[field] = (value as readonly string[]).flatMap((one) => ids.get(one) ?? []);
  }
  return name === 'VTPM' ? secretVtpm(world, ref, fields) : fields;
}

function blankVm(fields: Record<string, XapiValue>, defaults: AnyRecord, scope: ArchiveScope): void {
  const blanked: readonly string[] = [
    ...(scope.snapshots ? [] : SNAPSHOT_FIELDS),
    ...(scope.powerState ? [] : ['power_state', 'suspend_VDI', 'last_booted_record', 'last_boot_CPU_flags']),
  ];
  for (const field of blanked) fields[field] = defaults[field] ?? '';
}

/** A vTPM's object has names of its own, and its secret in clear. */
function secretVtpm(world: World, ref: string, fields: AnyRecord): AnyRecord {
  return {
    "vTPM'_VM": fields['VM'] ?? NULL_REF,
    "vTPM'_uuid": fields['uuid'] ?? '',
    "vTPM'_is_unique": fields['is_unique'] ?? false,
    "vTPM'_is_protected": fields['is_protected'] ?? false,
    "vTPM'_content": world.tpmContents.get(ref) ?? '',
  };
}

function pick(record: AnyRecord, names: readonly (keyof RecordOf<'host'>)[]): AnyRecord {
  return Object.fromEntries(names.map((name) => [name, record[name] ?? '']));
}
