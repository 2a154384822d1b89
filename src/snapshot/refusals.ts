import { BackupError } from '../core/index.ts';
import type { VmRecord } from '../host/index.ts';

/**
 * Throws `VM_NOT_SUPPORTED` where a snapshot cannot be right: templates, snapshots, control domains, ourselves.
 *
 * @internal
 */
export function assertCanSnapshot(vm: VmRecord, { selfUuid }: { readonly selfUuid?: string | undefined } = {}): void {
  const reason = refusalOf(vm, selfUuid);
  if (reason === undefined) return;
  throw new BackupError('VM_NOT_SUPPORTED', `${vm.name_label} (${vm.uuid}) cannot be backed up: ${reason}`, {
    facts: { vmUuid: vm.uuid, reason },
  });
}

/** Operations of the host that move a VM or its disks. */
const MIGRATES: ReadonlySet<string> = new Set(['migrate_send', 'pool_migrate']);

function refusalOf(vm: VmRecord, selfUuid: string | undefined): string | undefined {
  if (vm.is_control_domain) return 'it is a control domain';
  if (vm.is_a_snapshot) return 'it is a snapshot';
  if (vm.is_a_template) return 'it is a template';
  if (vm.uuid === selfUuid) return 'it is the VM that runs this program';
  if (Object.values(vm.current_operations).some((operation) => MIGRATES.has(operation))) return 'it is migrating';
  const blocked = vm.blocked_operations['snapshot'];
  if (blocked !== undefined) return `its snapshots are blocked on the host: ${blocked}`;
  return undefined;
}
