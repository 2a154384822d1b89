import type { RecordOf } from './data-model.ts';
import { cloneDisk, destroyDisk, snapshotDisk } from './disks.ts';
import { hostDate } from './host-date.ts';
import { deriveMac } from './mac.ts';
import type { Simulation } from './simulation.ts';
import { assertVdiOperation } from './vdi-checks.ts';
import { addVm } from './vms.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/** How a copy of a machine comes about. */
interface CopyPlan {
  /** The new machine's fields, over those of the old one. */
  readonly fields: Partial<RecordOf<'VM'>>;
  /** Makes the copy of one disk. */
  readonly copyDisk: (vdiRef: string) => Promise<string>;
  /** Disks that get no VBD in the copy. */
  readonly without: ReadonlySet<string>;
  /** Copied interfaces keep their addresses. */
  readonly keepMacs: boolean;
}

/** `VM.snapshot`: disk after disk; what was made is taken back if one fails. */
export async function snapshotVm(
  simulation: Simulation,
  vmRef: string,
  name: string,
  ignored: readonly string[],
  signal: AbortSignal,
  type: 'crash_consistent' | 'quiesced' = 'crash_consistent',
): Promise<string> {
  const { world } = simulation;
  const vm = world.getObject('VM', vmRef);
  if (vm.VUSBs.length > 0) throw new XapiFailure('VM_HAS_VUSBS', [vmRef]);
  const without = new Set(ignored);
  for (const vdi of ownDisks(simulation, vmRef)) if (!without.has(vdi)) assertVdiOperation(simulation, vdi, 'snapshot');
  const snapshot = await copyVm(simulation, vmRef, signal, {
    fields: {
      name_label: name,
      is_a_template: true,
      is_a_snapshot: true,
      snapshot_of: vmRef,
      snapshot_time: hostDate(world.clock.now()),
      snapshot_info: { 'power-state-at-snapshot': vm.power_state, 'disk-snapshot-type': type },
      snapshot_metadata: recordText(vm),
      parent: vm.parent,
      other_config: vm.other_config,
    },
    copyDisk: (vdi) => snapshotDisk(simulation, vdi),
    without,
    keepMacs: true,
  });
  world.updateObject('VM', vmRef, { parent: snapshot });
  return snapshot;
}

/** `VM.clone`: another machine, with addresses and disks of its own. */
export function cloneVm(simulation: Simulation, vmRef: string, name: string, signal: AbortSignal): Promise<string> {
  const { mac_seed: _seed, ...other_config } = simulation.world.getObject('VM', vmRef).other_config;
  return copyVm(simulation, vmRef, signal, {
    fields: {
      name_label: name,
      is_a_snapshot: false,
      snapshot_of: NULL_REF,
      snapshot_info: {},
      snapshot_metadata: '',
      parent: NULL_REF,
      other_config,
    },
    copyDisk: (vdi) => cloneDisk(simulation, vdi),
    without: new Set(),
    keepMacs: false,
  });
}

/** The disks, not CDs, of a machine. */
export function ownDisks({ world }: Simulation, vmRef: string): readonly string[] {
  return world
    .getObject('VM', vmRef)
    .VBDs.map((vbd) => world.getObject('VBD', vbd))
    .filter(({ type, VDI }) => type === 'Disk' && VDI !== NULL_REF)
    .map(({ VDI }) => VDI);
}

async function copyVm(simulation: Simulation, vmRef: string, signal: AbortSignal, plan: CopyPlan): Promise<string> {
  const { world } = simulation;
  const disks = new Map<string, string>();
  try {
    for (const vdi of ownDisks(simulation, vmRef)) {
      signal.throwIfAborted();
      if (!plan.without.has(vdi)) disks.set(vdi, await plan.copyDisk(vdi));
    }
    signal.throwIfAborted();
  } catch (error) {
    for (const made of disks.values()) await destroyDisk(simulation, made);
    throw error;
  }
  const source = world.getObject('VM', vmRef);
  const { uuid: _uuid, metrics: _metrics, guest_metrics: _guest, ...rest } = source;
  const copy = addVm(simulation, {
    ...rest,
    ...EMPTY_LISTS,
    power_state: 'Halted',
    resident_on: NULL_REF,
    suspend_VDI: NULL_REF,
    domid: -1,
    appliance: NULL_REF,
    ha_always_run: false,
    is_default_template: false,
    blocked_operations: {},
    current_operations: {},
    ...plan.fields,
  });
  copyVbds(simulation, source.VBDs, copy, disks, plan.without);
  copyVifs(simulation, source.VIFs, copy, plan.keepMacs);
  copyVtpms(simulation, source.VTPMs, copy);
  return copy;
}

const EMPTY_LISTS = {
  VBDs: [],
  VIFs: [],
  VTPMs: [],
  VUSBs: [],
  VGPUs: [],
  consoles: [],
  snapshots: [],
  children: [],
  crash_dumps: [],
} satisfies Partial<RecordOf<'VM'>>;

function copyVbds(
  { world }: Simulation,
  vbds: readonly string[],
  VM: string,
  disks: ReadonlyMap<string, string>,
  without: ReadonlySet<string>,
): void {
  for (const ref of vbds) {
    const { uuid: _uuid, ...vbd } = world.getObject('VBD', ref);
    if (vbd.type === 'Disk' && without.has(vbd.VDI)) continue;
    // A CD stays the CD that it is: both machines have it.
    const VDI = disks.get(vbd.VDI) ?? vbd.VDI;
    world.addObject('VBD', { ...vbd, VM, VDI, currently_attached: false, device: '', current_operations: {} });
  }
}

function copyVifs({ world }: Simulation, vifs: readonly string[], VM: string, keepMacs: boolean): void {
  for (const ref of vifs) {
    const { uuid: _uuid, ...vif } = world.getObject('VIF', ref);
    const seed = world.getObject('VM', VM).other_config['mac_seed'] ?? '';
    const MAC = keepMacs ? vif.MAC : deriveMac(seed, Number(vif.device));
    const MAC_autogenerated = keepMacs ? vif.MAC_autogenerated : true;
    world.addObject('VIF', { ...vif, VM, MAC, MAC_autogenerated, currently_attached: false, current_operations: {} });
  }
}

function copyVtpms({ world }: Simulation, vtpms: readonly string[], VM: string): void {
  for (const ref of vtpms) {
    const { uuid: _uuid, ...vtpm } = world.getObject('VTPM', ref);
    const copy = world.addObject('VTPM', { ...vtpm, VM });
    const contents = world.tpmContents.get(ref);
    if (!vtpm.is_unique && contents !== undefined) world.tpmContents.set(copy, contents);
  }
}

/** A record as the host keeps it in `snapshot_metadata`: an s-expression of fields and their text. */
function recordText(record: Readonly<Record<string, unknown>>): string {
  const quote = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`;
  const value = (field: unknown) => quote(typeof field === 'string' ? field : JSON.stringify(field));
  return `(${Object.entries(record)
    .map(([name, field]) => `(${quote(name)} ${value(field)})`)
    .join(' ')})`;
}
