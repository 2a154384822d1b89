import { assertAttachable } from './attach.ts';
import { createDisk } from './disks.ts';
import { hostDate } from './host-date.ts';
import type { Simulation } from './simulation.ts';
import { GIB } from './sizes.ts';
import { allowedOperations, assertPowerState } from './vm-operations.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/** `VM.start`: its disks are attached, if nobody else has them. */
export function startVm(simulation: Simulation, vmRef: string, operation = 'start'): void {
  const { world, refs } = simulation;
  const vm = world.getObject('VM', vmRef);
  if (vm.is_a_snapshot) throw new XapiFailure('VM_IS_SNAPSHOT', [vmRef, operation]);
  if (vm.is_a_template) throw new XapiFailure('VM_IS_TEMPLATE', [vmRef, operation]);
  assertPowerState(simulation, vmRef, 'Halted');
  assertMemoryOrder(simulation, vmRef);
  for (const ref of vm.VBDs) {
    const { VDI, mode, empty } = world.getObject('VBD', ref);
    if (!empty && VDI !== NULL_REF) assertAttachable(simulation, VDI, mode === 'RW' ? 'RW' : 'RO');
  }
  enter(simulation, vmRef, 'Running', refs.host);
}

/** `VM.hard_shutdown` and `VM.clean_shutdown`. */
export function haltVm(simulation: Simulation, vmRef: string): void {
  enter(simulation, vmRef, 'Halted', NULL_REF);
}

/** `VM.suspend`: memory goes to a disk of its own. */
export async function suspendVm(simulation: Simulation, vmRef: string): Promise<void> {
  const { world, refs } = simulation;
  assertPowerState(simulation, vmRef, 'Running');
  const { suspend_SR, memory_static_max } = world.getObject('VM', vmRef);
  const suspend_VDI = await createDisk(simulation, {
    SR: world.findObject('SR', suspend_SR) === undefined ? refs.defaultSr : suspend_SR,
    name_label: 'Suspend image',
    virtual_size: memory_static_max,
    type: 'suspend',
  });
  world.updateObject('VM', vmRef, { suspend_VDI });
  enter(simulation, vmRef, 'Suspended', NULL_REF);
}

/** A power state, with all that goes with it: attachments, metrics, the host it runs on. */
export function enter(simulation: Simulation, vmRef: string, state: string, host: string): void {
  const { world } = simulation;
  const running = state === 'Running' || state === 'Paused';
  const vm = world.getObject('VM', vmRef);
  for (const [index, ref] of vm.VBDs.entries()) {
    const vbd = world.getObject('VBD', ref);
    const device = `xvd${String.fromCharCode(97 + (Number(vbd.userdevice) || index))}`;
    world.updateObject('VBD', ref, { currently_attached: running, device: running ? device : vbd.device });
  }
  for (const ref of vm.VIFs) world.updateObject('VIF', ref, { currently_attached: running });
  world.removeObject('VM_guest_metrics', vm.guest_metrics);
  const guest_metrics = running ? addGuestMetrics(simulation, vmRef) : NULL_REF;
  world.updateObject('VM', vmRef, {
    power_state: state,
    resident_on: host,
    domid: running ? nextDomain(simulation) : -1,
    guest_metrics,
    allowed_operations: allowedOperations(state, vm.is_a_snapshot),
  });
}

/** What the tools in the guest tell; a guest without tools tells nothing. */
function addGuestMetrics({ world }: Simulation, vmRef: string): string {
  const tools = world.guestTools.get(vmRef) ?? 'basic';
  if (tools === 'none') return NULL_REF;
  return world.addObject('VM_guest_metrics', {
    os_version: { name: 'Debian GNU/Linux 12', distro: 'debian', major: '12', minor: '0', uname: '6.1.0' },
    PV_drivers_version: { major: '8', minor: '4', micro: '0', build: '1' },
    PV_drivers_up_to_date: true,
    PV_drivers_detected: true,
    networks: { '0/ip': '192.0.2.50', '0/ipv4/0': '192.0.2.50' },
    other: tools === 'vss' ? { 'feature-snapshot': '1', 'feature-quiesce': '1' } : {},
    last_updated: hostDate(world.clock.now()),
    live: true,
  });
}

function nextDomain({ world }: Simulation): number {
  return 1 + Math.max(...[...world.objects('VM')].map(([, { domid }]) => domid));
}

/** Throws unless static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max. */
export function assertMemoryOrder({ world }: Pick<Simulation, 'world'>, vmRef: string): void {
  const vm = world.getObject('VM', vmRef);
  const order = [vm.memory_static_min, vm.memory_dynamic_min, vm.memory_dynamic_max, vm.memory_static_max];
  if (order.some((size, index) => index > 0 && size < order[index - 1]!)) {
    throw new XapiFailure('MEMORY_CONSTRAINT_VIOLATION_ORDER');
  }
  const free = 60 * GIB;
  if (vm.memory_static_max > free) {
    throw new XapiFailure('HOST_NOT_ENOUGH_FREE_MEMORY', [String(vm.memory_static_max), String(free)]);
  }
}
