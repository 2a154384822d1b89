import { cloneDisk, destroyDisk } from './disks.ts';
import type { Call } from './method.ts';
import { withVmOperation } from './vm-operations.ts';
import { enter } from './vm-power.ts';
import { ownDisks } from './vm-snapshot.ts';
import { generationId } from './vms.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/**
 * `VM.revert` as hosts before xapi 26.16 do it: the machine's disks are destroyed and replaced by clones of the
 * snapshot's, with new references and uuids and without change tracking; older snapshots are made to point to them.
 */
export async function revertVm(call: Call, snapshotRef: string): Promise<void> {
  const { world } = call;
  const snapshot = world.getObject('VM', snapshotRef);
  if (!snapshot.is_a_snapshot) throw new XapiFailure('REVERT_ONLY_ALLOWED_ON_SNAPSHOT');
  const vmRef = snapshot.snapshot_of;
  if (world.findObject('VM', vmRef) === undefined) throw new XapiFailure('VM_REVERT_FAILED', [snapshotRef, vmRef]);
  await withVmOperation(call, vmRef, 'revert', async () => {
    enter(call, vmRef, 'Halted', NULL_REF);
    const vm = world.getObject('VM', vmRef);
    const kept = new Set(ownDisks(call, snapshotRef).map((vdi) => world.getObject('VDI', vdi).snapshot_of));
    for (const vbd of vm.VBDs) world.removeObject('VBD', vbd);
    for (const vbd of snapshot.VBDs) await revertDisk(call, vmRef, vbd, kept);
    for (const vif of vm.VIFs) world.removeObject('VIF', vif);
    for (const vif of snapshot.VIFs) {
      const { uuid: _uuid, ...fields } = world.getObject('VIF', vif);
      world.addObject('VIF', { ...fields, VM: vmRef });
    }
    world.updateObject('VM', vmRef, { generation_id: generationId(), parent: snapshotRef });
  });
}

async function revertDisk(call: Call, vmRef: string, vbdRef: string, kept: ReadonlySet<string>): Promise<void> {
  const { world } = call;
  const { uuid: _uuid, ...vbd } = world.getObject('VBD', vbdRef);
  if (vbd.type !== 'Disk') {
    world.addObject('VBD', { ...vbd, VM: vmRef });
    return;
  }
  const old = world.getObject('VDI', vbd.VDI).snapshot_of;
  const snapshots = world.findObject('VDI', old)?.snapshots ?? [];
  const clone = await cloneDisk(call, vbd.VDI);
  if (kept.has(old) && world.findObject('VDI', old) !== undefined) await destroyDisk(call, old);
  for (const other of snapshots) world.updateObject('VDI', other, { snapshot_of: clone });
  world.addObject('VBD', { ...vbd, VM: vmRef, VDI: clone });
}
