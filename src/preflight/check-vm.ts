import { BackupError } from '../core/index.ts';
import { assertCanSnapshot } from '../snapshot/index.ts';
import type { Context, VmWithDisks } from './context.ts';
import { type Finding, subjectOf } from './finding.ts';

/** Can the VM be snapshotted, and how consistently? */
export async function* checkVm({ host }: Context, { vm }: VmWithDisks): AsyncGenerator<Finding> {
  const subject = subjectOf('vm', vm);
  const refusal = refusalOf(vm);
  if (refusal !== undefined) {
    const evidence = { reason: refusal.facts['reason'] };
    yield { id: 'vm.refused', severity: 'error', subject, evidence, message: refusal.message };
  }
  const usb = vm.VUSBs ?? [];
  if (usb.length > 0) {
    yield {
      ...{ id: 'vm.usb', severity: 'error', subject, evidence: { count: usb.length } },
      message: `${vm.name_label} has USB devices passed through: the host refuses to snapshot it`,
      fix: { words: 'Detach them while the VM is halted.' },
    };
  }
  if (vm.power_state === 'Suspended') {
    const message = `${vm.name_label} is suspended: its memory is not in a backup, and a restore brings it back halted`;
    yield { id: 'vm.suspended', severity: 'info', subject, evidence: {}, message };
  }
  if (vm.power_state !== 'Running') return; // only a running guest tells of its tools
  const metrics = await host.findRecord('VM_guest_metrics', vm.guest_metrics);
  const version = metrics?.PV_drivers_version ?? {};
  const tools = metrics?.PV_drivers_detected === true || Object.keys(version).length > 0;
  const quiesce = ['feature-quiesce', 'feature-snapshot'].some((feature) => metrics?.other[feature] === '1');
  const evidence = { tools, version, quiesce };
  if (tools) {
    const message = `${vm.name_label} has guest tools${quiesce ? ', which can quiesce where the host can' : ''}`;
    yield { id: 'vm.tools', severity: 'ok', subject, evidence, message };
    return;
  }
  yield {
    ...{ id: 'vm.tools', severity: 'info', subject, evidence },
    message: `${vm.name_label} has no guest tools: its snapshots are crash-consistent`,
    fix: { words: 'Install the tools in the guest, or use hooks.' },
  };
}

function refusalOf(vm: VmWithDisks['vm']): BackupError | undefined {
  try {
    assertCanSnapshot(vm);
    return undefined;
  } catch (error) {
    if (error instanceof BackupError && error.code === 'VM_NOT_SUPPORTED') return error;
    throw error;
  }
}
