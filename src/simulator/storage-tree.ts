import type { Simulation } from './simulation.ts';

/** Where a disk's record says what it hangs on. */
const PARENT = 'vhd-parent';

/**
 * A snapshot has frozen what a disk was: on the storage this is a third node, with a record of its own that nobody
 * manages, and both hang on it.
 */
export function addBaseCopy({ world }: Simulation, liveRef: string, snapshotRef: string): void {
  const live = world.getObject('VDI', liveRef);
  const base = world.addObject('VDI', {
    name_label: 'base copy',
    SR: live.SR,
    virtual_size: live.virtual_size,
    physical_utilisation: live.physical_utilisation,
    type: live.type,
    managed: false,
    read_only: true,
    sm_config: live.sm_config,
    snapshot_time: live.snapshot_time,
  });
  const { uuid } = world.getObject('VDI', base);
  world.updateObject('VDI', base, { location: uuid });
  for (const ref of [liveRef, snapshotRef]) {
    const { sm_config } = world.getObject('VDI', ref);
    world.updateObject('VDI', ref, { sm_config: { ...sm_config, [PARENT]: uuid } });
  }
}

/**
 * A disk's data has gone: some time later the garbage collector folds nodes with one child into it, and removes those
 * without any.
 */
export function collectGarbage(simulation: Simulation, goneParent: string | undefined): void {
  const { world, timing } = simulation;
  if (goneParent === undefined || world.faults.take('coalesce-not-done') !== undefined) return;
  simulation.inBackground(async (closing) => {
    await world.clock.sleep(timing.settleMs, { signal: closing });
    let parent: string | undefined = goneParent;
    while (parent !== undefined) parent = fold(simulation, parent);
  });
}

/** Removes one node if it is not needed; returns the next to look at. */
function fold({ world }: Simulation, uuid: string): string | undefined {
  const all = [...world.objects('VDI')];
  const [found] = all.filter(([, vdi]) => vdi.uuid === uuid && !vdi.managed);
  if (found === undefined) return undefined;
  const [ref, node] = found;
  const children = all.filter(([, vdi]) => vdi.sm_config[PARENT] === uuid);
  const above = node.sm_config[PARENT];
  if (children.length > 1) return undefined;
  for (const [child, { sm_config }] of children) {
    const { [PARENT]: _folded, ...rest } = sm_config;
    world.updateObject('VDI', child, { sm_config: above === undefined ? rest : { ...rest, [PARENT]: above } });
  }
  world.removeObject('VDI', ref);
  return above;
}

/** The uuid of the node a disk hangs on. */
export function parentOf({ world }: Simulation, vdiRef: string): string | undefined {
  return world.findObject('VDI', vdiRef)?.sm_config[PARENT];
}
