import { attachedVbds } from './attach.ts';
import type { Simulation } from './simulation.ts';
import { collectGarbage, parentOf } from './storage-tree.ts';
import { assertVdiOperation } from './vdi-checks.ts';
import { XapiFailure } from './world.ts';

/** What the host says in place of a content id once the data has gone. */
const NO_CONTENT = '/No content: this is a cbt_metadata VDI/';

/** `VDI.enable_cbt` and `VDI.disable_cbt`: nothing happens if it is so already. */
export function setChangeTracking(simulation: Simulation, vdiRef: string, wanted: boolean): void {
  const { world, chains } = simulation;
  const vdi = world.getObject('VDI', vdiRef);
  const restrictions = world.getObject('pool', simulation.refs.pool).restrictions;
  if (wanted && restrictions['restrict_cbt'] !== 'false') throw new XapiFailure('LICENCE_RESTRICTION', ['CBT']);
  assertVdiOperation(simulation, vdiRef, wanted ? 'enable_cbt' : 'disable_cbt');
  if (vdi.type !== 'user' && vdi.type !== 'system') {
    throw new XapiFailure('VDI_INCOMPATIBLE_TYPE', [vdiRef, vdi.type]);
  }
  if (vdi.is_a_snapshot) {
    throw new XapiFailure('OPERATION_NOT_ALLOWED', [`VDI is a snapshot: ${vdiRef}`]);
  }
  if (vdi.sm_config['type'] === 'raw') {
    throw new XapiFailure('SR_BACKEND_FAILURE_66', ['', 'The VDI is raw: it cannot be tracked', '']);
  }
  if (vdi.cbt_enabled === wanted) return;
  if (wanted) {
    world.image(vdiRef).startTracking();
    chains.begin(vdi.uuid);
  } else {
    world.findImage(vdiRef)?.stopTracking();
    chains.end(vdi.uuid);
  }
  world.updateObject('VDI', vdiRef, { cbt_enabled: wanted });
}

/** `VDI.list_changed_blocks`: the bitmap, most significant bit first. */
export function changedBlocks(simulation: Simulation, fromRef: string, toRef: string): Uint8Array {
  const { world, chains } = simulation;
  assertVdiOperation(simulation, fromRef, 'list_changed_blocks');
  assertVdiOperation(simulation, toRef, 'list_changed_blocks');
  const [from, to] = [world.getObject('VDI', fromRef), world.getObject('VDI', toRef)];
  if (!to.is_a_snapshot && attachedVbds(simulation, toRef).length > 0) {
    throw new XapiFailure('VDI_IN_USE', [toRef, 'list_changed_blocks']);
  }
  const image = world.findImage(toRef);
  const live = !to.is_a_snapshot && image?.tracking ? { size: image.size, bits: image.readChanges() } : undefined;
  const bitmap = chains.list(from.uuid, to.uuid, live);
  const lie = world.faults.take('bitmap-lies');
  return lie === undefined ? bitmap : withoutFirst(bitmap, lie.blocks ?? Number.POSITIVE_INFINITY);
}

/** The bitmap with its first so many bits cleared. */
function withoutFirst(bitmap: Uint8Array, count: number): Uint8Array {
  const left = bitmap.slice();
  let cleared = 0;
  for (let bit = 0; bit < left.byteLength * 8 && cleared < count; bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((left[bit >> 3]! & mask) === 0) continue;
    left[bit >> 3]! &= ~mask;
    cleared++;
  }
  return left;
}

/**
 * `VDI.data_destroy`: the data of a snapshot goes, its change log stays. Waits for the snapshot's VBDs to go first,
 * but not for long.
 */
export async function destroyData(simulation: Simulation, vdiRef: string, signal: AbortSignal): Promise<void> {
  const { world, timing } = simulation;
  const vdi = world.getObject('VDI', vdiRef);
  if (!vdi.is_a_snapshot) {
    throw new XapiFailure('OPERATION_NOT_ALLOWED', [`VDI is not a snapshot: ${vdiRef}`]);
  }
  if (!vdi.cbt_enabled) throw new XapiFailure('VDI_NO_CBT_METADATA', [vdiRef]);
  assertVdiOperation(simulation, vdiRef, 'data_destroy');
  if (vdi.type === 'cbt_metadata') return;
  // The type changes before the wait: whoever looks meanwhile meets VDI_INCOMPATIBLE_TYPE.
  world.updateObject('VDI', vdiRef, { type: 'cbt_metadata' });
  try {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(timing.dataDestroyWaitMs)]);
    await vbdsGone(simulation, vdiRef, deadline, signal);
  } catch (error) {
    world.updateObject('VDI', vdiRef, { type: vdi.type });
    throw error;
  }
  const parent = parentOf(simulation, vdiRef);
  const image = world.findImage(vdiRef);
  world.setImage(vdiRef, undefined);
  await image?.destroy();
  const { sm_config, other_config } = world.getObject('VDI', vdiRef);
  const { 'vhd-parent': _parent, ...left } = sm_config;
  world.updateObject('VDI', vdiRef, {
    physical_utilisation: 0,
    sm_config: left,
    other_config: { ...other_config, content_id: NO_CONTENT },
    allowed_operations: ['destroy', 'list_changed_blocks', 'forget', 'update'],
  });
  collectGarbage(simulation, parent);
}

/** Waits until no VBD names the disk: also a snapshot VM's VBD must have gone. */
async function vbdsGone(
  { world }: Simulation,
  vdiRef: string,
  deadline: AbortSignal,
  signal: AbortSignal,
): Promise<void> {
  while (world.getObject('VDI', vdiRef).VBDs.length > 0) {
    try {
      await world.nextChange(world.generation, deadline);
    } catch (error) {
      signal.throwIfAborted();
      if (!deadline.aborted) throw error;
      throw new XapiFailure('VDI_IN_USE', [vdiRef, 'data_destroy']);
    }
  }
}
