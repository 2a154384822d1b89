import { randomUUID } from 'node:crypto';
import type { RecordOf } from './data-model.ts';
import { hostDate } from './host-date.ts';
import type { Simulation } from './simulation.ts';
import { allowedOperations, assertPowerState } from './vm-operations.ts';
import { XapiFailure } from './world.ts';
import { newRef } from './world-state.ts';

/** Makes a machine's record with its metrics; what `VM.create` decides by itself is decided here. */
export function addVm({ world }: Pick<Simulation, 'world'>, fields: Partial<RecordOf<'VM'>>, ref = newRef()): string {
  const metrics = world.addObject('VM_metrics', { VCPUs_number: fields.VCPUs_max ?? 1, install_time: now(world) });
  const other_config = { ...fields.other_config };
  other_config['mac_seed'] ??= randomUUID();
  const power_state = fields.power_state ?? 'Halted';
  return world.addObject(
    'VM',
    {
      domid: -1,
      hardware_platform_version: 2,
      generation_id: generationId(),
      transportable_snapshot_id: '',
      shutdown_delay: 0,
      ...fields,
      other_config,
      metrics,
      power_state,
      domain_type: domainType(fields),
      allowed_operations: allowedOperations(power_state, fields.is_a_snapshot ?? false),
    },
    ref,
  );
}

/** 128 random bits in two halves, as Windows guests are shown them. */
export function generationId(): string {
  const half = () => BigInt.asIntN(64, BigInt(`0x${randomUUID().replaceAll('-', '').slice(0, 16)}`)).toString();
  return `${half()}:${half()}`;
}

function domainType({ domain_type = 'unspecified', HVM_boot_policy = '' }: Partial<RecordOf<'VM'>>): string {
  if (domain_type !== 'unspecified') return domain_type;
  return HVM_boot_policy === '' ? 'pv' : 'hvm';
}

function now({ clock }: Simulation['world']): string {
  return hostDate(clock.now());
}

/** `VM.destroy`: the record and what hangs on it; disks stay, always. */
export function destroyVm(simulation: Simulation, vmRef: string): void {
  const { world } = simulation;
  const vm = world.getObject('VM', vmRef);
  if (vm.is_control_domain) throw new XapiFailure('OPERATION_NOT_ALLOWED', ['A control domain cannot be destroyed']);
  if (vm.is_default_template) throw new XapiFailure('VM_CANNOT_DELETE_DEFAULT_TEMPLATE');
  if (vm.is_a_snapshot) assertPowerState(simulation, vmRef, 'Halted', 'Suspended');
  else assertPowerState(simulation, vmRef, 'Halted');
  for (const child of vm.children) world.updateObject('VM', child, { parent: vm.parent });
  for (const vbd of vm.VBDs) world.removeObject('VBD', vbd);
  for (const vif of vm.VIFs) world.removeObject('VIF', vif);
  for (const vtpm of vm.VTPMs) {
    world.removeObject('VTPM', vtpm);
    world.tpmContents.delete(vtpm);
  }
  world.removeObject('VM_metrics', vm.metrics);
  world.removeObject('VM_guest_metrics', vm.guest_metrics);
  world.guestTools.delete(vmRef);
  world.removeObject('VM', vmRef);
}
