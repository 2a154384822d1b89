import { snapshotDisk } from './disks.ts';
import { hostDate } from './host-date.ts';
import type { Call } from './method.ts';
import { assertPowerState } from './vm-operations.ts';
import { ownDisks, snapshotVm } from './vm-snapshot.ts';
import { XapiFailure } from './world.ts';

/**
 * `VM.snapshot_with_quiesce`, as hosts up to release 8.0 have it: the guest's tools make the snapshot under a name of
 * theirs, and only when all is well it gets the name that the caller wants. The fault `quiesce` fails it.
 *
 * @see xapi-project/xen-api v1.160 `ocaml/xapi/xapi_vm_snapshot.ml`, xapi-project/sm `snapwatchd/snapwatchd`
 */
export async function quiesceAndSnapshot(call: Call, vm: string, name: string): Promise<string> {
  const { world, signal, refs } = call;
  assertPowerState(call, vm, 'Running');
  if (world.getObject('pool', refs.pool).restrictions['restrict_vss'] === 'true') {
    throw new XapiFailure('LICENCE_RESTRICTION', ['VSS']);
  }
  const { uuid, guest_metrics } = world.getObject('VM', vm);
  const told = world.findObject('VM_guest_metrics', guest_metrics)?.other;
  if (told?.['feature-quiesce'] !== '1' && told?.['feature-snapshot'] !== '1') {
    throw new XapiFailure('VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED', [vm]);
  }
  const fault = world.faults.take('quiesce');
  if (fault?.halfMade === 'disks') for (const vdi of ownDisks(call, vm)) await snapshotDisk(call, vdi);
  if (fault === undefined || fault.halfMade === 'vm') {
    const passing = `Snapshot of ${uuid} [${hostDate(world.clock.now())}]`;
    const snapshot = await snapshotVm(call, vm, passing, [], signal, 'quiesced');
    if (fault === undefined) {
      world.updateObject('VM', snapshot, { name_label: name });
      return snapshot;
    }
  }
  throw new XapiFailure(fault.code ?? 'VM_SNAPSHOT_WITH_QUIESCE_FAILED', [vm, ...(fault.params ?? [])]);
}
