import { randomUUID } from 'node:crypto';
import { type ArchivedObject, addImported, type ImportState, importedRef, refWithUuid } from './archive-import.ts';
import type { AnyRecord, RecordOf } from './data-model.ts';
import { allowedOperations } from './vm-operations.ts';
import { generationId } from './vms.ts';
import { NULL_REF, type World, XapiFailure } from './world.ts';

type Vm = Readonly<RecordOf<'VM'>>;

/** Lists that the host derives from the objects on the other side. */
const DERIVED = {
  VBDs: [],
  VIFs: [],
  VGPUs: [],
  VTPMs: [],
  VUSBs: [],
  snapshots: [],
  children: [],
  consoles: [],
  crash_dumps: [],
  groups: [],
  attached_PCIs: [],
  current_operations: {},
  blobs: {},
} as const satisfies Partial<Vm>;

/**
 * One machine of an archive: as new, as itself, or in place of the one that has its uuid.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `VM.precheck`, `VM.handle`
 */
export function importVm(state: ImportState, object: ArchivedObject): string | undefined {
  const { world, options } = state;
  const vm = object.record as unknown as Vm;
  const template = defaultTemplateLike(world, vm);
  if (template !== undefined) return template;
  if (options.restore) {
    assertSeedIsFree(state, object);
    const existing = refWithUuid(world, 'VM', vm.uuid);
    if (existing !== undefined && !replaceVm(state, existing, vm)) return undefined;
  }
  return addImported(state, 'VM', newVm(state, vm));
}

function defaultTemplateLike(world: World, vm: Vm): string | undefined {
  if (!vm.is_default_template) return undefined;
  return [...world.objects('VM')].find(([, { name_label }]) => name_label === vm.name_label)?.[0];
}

/** Destroys the machine that is in the way, its disks stay; false: it is left, and the archived one out. */
function replaceVm({ world, options }: ImportState, existing: string, vm: Vm): boolean {
  const { power_state, version, VBDs, VIFs } = world.getObject('VM', existing);
  if (power_state !== 'Halted') {
    if (options.force) return false;
    throw new XapiFailure('VM_BAD_POWER_STATE', [existing, 'halted', power_state.toLowerCase()]);
  }
  if (version >= vm.version && !options.force) {
    const versions = [String(version), String(vm.version)];
    throw new XapiFailure('VM_TO_IMPORT_IS_NOT_NEWER_VERSION', [existing, ...versions]);
  }
  if (options.dryRun) return true;
  for (const vbd of VBDs) world.removeObject('VBD', vbd);
  for (const vif of VIFs) world.removeObject('VIF', vif);
  world.removeObject('VM', existing);
  return true;
}

/** Two machines must not share a seed, and so their addresses, unless one is the other, or a snapshot of it. */
function assertSeedIsFree({ world, archived }: ImportState, { record }: ArchivedObject): void {
  const vm = record as unknown as Vm;
  const seed = vm.other_config['mac_seed'];
  if (seed === undefined) return;
  const origin = originOf(vm, archived.get(vm.snapshot_of)?.record as Vm | undefined);
  for (const [, other] of world.objects('VM')) {
    if (other.other_config['mac_seed'] !== seed) continue;
    const same = origin !== undefined && origin === originOf(other, world.findObject('VM', other.snapshot_of));
    if (!same) throw new XapiFailure('DUPLICATE_MAC_SEED', [seed]);
  }
}

/** The uuid of the machine that this one is, or is a snapshot of; a snapshot whose machine has gone still names it. */
function originOf(vm: Vm, source: Vm | undefined): string | undefined {
  if (!vm.is_a_snapshot) return vm.uuid;
  return source?.uuid ?? /\('uuid' '([^']*)'\)/.exec(vm.snapshot_metadata)?.[1];
}

function newVm(state: ImportState, vm: Vm): Partial<Vm> {
  const { world, options } = state;
  const { mac_seed: seed, default_template: template, ...config } = vm.other_config;
  const power = powerFields(state, vm);
  return {
    ...vm,
    ...DERIVED,
    ...power,
    allowed_operations: allowedOperations(power.power_state, vm.is_a_snapshot),
    uuid: options.restore ? vm.uuid : randomUUID(),
    version: options.restore ? vm.version + 1 : 0,
    other_config: {
      ...config,
      ...(options.force && template !== undefined && { default_template: template }),
      mac_seed: options.restore && seed !== undefined ? seed : randomUUID(),
      import_task: options.taskRef,
    },
    is_default_template: options.force && vm.is_default_template,
    blocked_operations: {},
    appliance: NULL_REF,
    protection_policy: NULL_REF,
    snapshot_schedule: NULL_REF,
    suspend_SR: world.findObject('SR', vm.suspend_SR) === undefined ? NULL_REF : vm.suspend_SR,
    affinity: importedRef(state, vm.affinity),
    resident_on: NULL_REF,
    scheduled_to_be_resident_on: NULL_REF,
    metrics: importedRef(state, vm.metrics),
    guest_metrics: importedRef(state, vm.guest_metrics),
    generation_id: vm.is_a_template || vm.generation_id === '' ? vm.generation_id : generationId(),
    platform: withDeviceModel(vm),
    domid: -1,
    is_control_domain: false,
    // Linked once all machines are there.
    snapshot_of: NULL_REF,
    parent: NULL_REF,
  };
}

/** Halted, or suspended with its memory. */
function powerFields(state: ImportState, vm: Vm): Pick<Vm, 'power_state' | 'suspend_VDI' | 'last_booted_record'> {
  const halted = { power_state: 'Halted', suspend_VDI: NULL_REF, last_booted_record: '' };
  if (vm.power_state !== 'Suspended') return halted;
  const memory = state.refs.get(vm.suspend_VDI);
  if (memory !== undefined)
    return { power_state: 'Suspended', suspend_VDI: memory, last_booted_record: vm.last_booted_record };
  if (state.options.force) return halted;
  throw new XapiFailure('IMPORT_ERROR_FAILED_TO_FIND_OBJECT', [vm.suspend_VDI]);
}

function withDeviceModel({ HVM_boot_policy, HVM_boot_params, platform }: Vm): Vm['platform'] {
  if (HVM_boot_policy === '' || platform['device-model'] !== undefined) return platform;
  const uefi = HVM_boot_params['firmware'] === 'uefi';
  return { ...platform, 'device-model': uefi ? 'qemu-upstream-uefi' : 'qemu-upstream-compat' };
}

/** Makes snapshots the snapshots of the machines that came with them. */
export function linkSnapshots(state: ImportState): void {
  for (const { id, class: name, record } of state.archived.values()) {
    const ref = state.refs.get(id);
    if (name !== 'VM' || ref === undefined) continue;
    const links = {
      snapshot_of: importedRef(state, record['snapshot_of']),
      parent: importedRef(state, record['parent']),
    };
    if (links.snapshot_of !== NULL_REF || links.parent !== NULL_REF) state.world.updateObject('VM', ref, links);
  }
}

/** The machines that came, snapshots left out unless nothing else came. */
export function importedVms(state: ImportState): readonly string[] {
  const vms = [...state.archived.values()].filter(({ class: name, id }) => name === 'VM' && state.refs.has(id));
  const isSnapshot = ({ record }: { readonly record: AnyRecord }) => record['is_a_snapshot'] === true;
  const machines = vms.every(isSnapshot) ? vms : vms.filter((vm) => !isSnapshot(vm));
  return machines.map(({ id }) => importedRef(state, id));
}
