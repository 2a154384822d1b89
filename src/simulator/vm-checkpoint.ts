import { createDisk } from './disks.ts';
import type { Call } from './method.ts';
import { assertPowerState } from './vm-operations.ts';
import { snapshotVm } from './vm-snapshot.ts';
import { XapiFailure } from './world.ts';

/**
 * `VM.checkpoint`: a snapshot with the machine's memory, which the licence must allow.
 *
 * @see xapi-project/xen-api `ocaml/xapi/xapi_vm_snapshot.ml` `checkpoint`
 */
export async function checkpointVm(call: Call, vmRef: string, name: string): Promise<string> {
  const { world, refs } = call;
  if (world.getObject('pool', refs.pool).restrictions['restrict_checkpoint'] !== 'false') {
    throw new XapiFailure('LICENCE_RESTRICTION', ['Checkpoint']);
  }
  assertPowerState(call, vmRef, 'Running', 'Paused', 'Suspended');
  const snapshot = await snapshotVm(call, vmRef, name, [], call.signal);
  const { memory_static_max: virtual_size } = world.getObject('VM', vmRef);
  const memory = { name_label: 'Suspend image', type: 'suspend', is_a_snapshot: true } as const;
  const suspend_VDI = await createDisk(call, { ...memory, SR: refs.defaultSr, virtual_size });
  world.updateObject('VM', snapshot, { power_state: 'Suspended', suspend_VDI });
  return snapshot;
}
