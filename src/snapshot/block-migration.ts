import { HostError } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { type Intent, parseIntent } from './ownership.ts';

/** What would move disks away under a backup. */
const OPERATIONS = ['migrate_send', 'pool_migrate'] as const;

/** What a user reads who tries; behind it, which run it is. */
const REASON = 'xen-backup-sdk is backing this VM up: ';

type Blocked = Pick<VmRecord, 'uuid' | 'blocked_operations'>;

/**
 * Forbids the migration of a VM for the time of a run. What its owner has forbidden already stays as it is. The reason
 * names VM and run, so that a later process can take it back.
 *
 * @see xapi-project/xen-api `ocaml/idl/datamodel_vm.ml` `blocked_operations`
 *
 * @internal
 */
export async function blockMigration(host: Host, vm: Pick<VmRecord, 'ref'>, by: Intent): Promise<void> {
  const { blocked_operations } = await host.getRecord('VM', vm.ref);
  for (const operation of OPERATIONS) {
    if (blocked_operations[operation] !== undefined) continue;
    try {
      await host.call('VM.add_to_blocked_operations', vm.ref, operation, REASON + JSON.stringify(by));
    } catch (error) {
      if (!(error instanceof HostError) || error.xapiCode !== 'MAP_DUPLICATE_KEY') throw error; // another run's, just now
    }
  }
}

/** The runs that forbid the migration of a VM, each once. */
export function readMigrationBlocks(vm: Blocked): Intent[] {
  const found = new Map<string, Intent>();
  for (const operation of OPERATIONS) {
    const by = parseReason(vm, vm.blocked_operations[operation]);
    if (by !== undefined) found.set(by.runId, by);
  }
  return [...found.values()];
}

/**
 * Takes back what one run has forbidden.
 *
 * @internal
 */
export async function unblockMigration(host: Host, vm: Pick<VmRecord, 'ref'>, runId: string): Promise<void> {
  const record = await host.findRecord('VM', vm.ref);
  if (record === undefined) return;
  for (const operation of OPERATIONS) {
    if (parseReason(record, record.blocked_operations[operation])?.runId !== runId) continue;
    await host.call('VM.remove_from_blocked_operations', record.ref, operation);
  }
}

/**
 * What the VM's owner has forbidden: without what runs of this library have.
 *
 * @internal
 */
export function ownersBlocks(vm: Blocked): Record<string, string> {
  return Object.fromEntries(
    Object.entries(vm.blocked_operations).filter(([, reason]) => parseReason(vm, reason) === undefined),
  );
}

/** Which run of ours forbade it on this very VM, if one did. */
function parseReason(vm: Blocked, reason: string | undefined): Intent | undefined {
  return reason?.startsWith(REASON) === true ? parseIntent(vm, reason.slice(REASON.length)) : undefined;
}
