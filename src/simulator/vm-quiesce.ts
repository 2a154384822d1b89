import type { Call } from './method.ts';
import { assertPowerState } from './vm-operations.ts';
import { ownDisks, snapshotVm } from './vm-snapshot.ts';
import { XapiFailure } from './world.ts';

/**
 * `VM.snapshot_with_quiesce`, as hosts up to release 8.0 have it. The fault `quiesce` fails it, and may leave a snapshot
 * of the first disk behind, as hosts do.
 *
 * @see xapi-project/xen-api v1.160 `ocaml/xapi/xapi_vm_snapshot.ml`
 */
export async function quiesceAndSnapshot(call: Call, vm: string, name: string): Promise<string> {
  const { world, signal } = call;
  assertPowerState(call, vm, 'Running');
  const { guest_metrics } = world.getObject('VM', vm);
  if (world.findObject('VM_guest_metrics', guest_metrics)?.other['feature-quiesce'] !== '1') {
    throw new XapiFailure('VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED', [vm]);
  }
  const fault = world.faults.take('quiesce');
  if (fault === undefined) return snapshotVm(call, vm, name, [], signal, 'quiesced');
  if (fault.halfMade === true) await snapshotVm(call, vm, name, ownDisks(call, vm).slice(1), signal);
  throw new XapiFailure(fault.code ?? 'VM_SNAPSHOT_WITH_QUIESCE_FAILED', [vm]);
}
