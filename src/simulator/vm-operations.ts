import type { Call } from './method.ts';
import type { Simulation } from './simulation.ts';
import { XapiFailure } from './world.ts';
import { newRef } from './world-state.ts';

/** Operations that may overlap, within each group only. */
const GROUPS: readonly ReadonlySet<string>[] = [
  new Set(['clone', 'copy', 'export']),
  new Set(['snapshot', 'snapshot_with_quiesce', 'checkpoint']),
];

/** Who waits, and until when. */
type Operator = Simulation & Pick<Call, 'signal'>;

/**
 * Holds a machine for an operation: refuses it if it is blocked, and waits for operations that clash, as the host's
 * queue does.
 */
export async function withVmOperation<T>(
  simulation: Operator,
  vmRef: string,
  operation: string,
  work: () => Promise<T>,
): Promise<T> {
  const { world, signal } = simulation;
  for (;;) {
    signal.throwIfAborted();
    assertNotBlocked(simulation, vmRef, operation);
    const seen = world.generation;
    const clash = Object.values(world.getObject('VM', vmRef).current_operations).some(
      (other) => !GROUPS.some((group) => group.has(operation) && group.has(other)),
    );
    if (!clash) break;
    await world.nextChange(seen, signal);
  }
  const id = newRef();
  const before = world.getObject('VM', vmRef);
  world.updateObject('VM', vmRef, { current_operations: { ...before.current_operations, [id]: operation } });
  try {
    return await work();
  } finally {
    const after = world.findObject('VM', vmRef);
    if (after !== undefined) {
      const { [id]: _done, ...others } = after.current_operations;
      world.updateObject('VM', vmRef, { current_operations: others });
    }
  }
}

/** Throws `OPERATION_BLOCKED` with the reason its owner gave. */
export function assertNotBlocked({ world }: Pick<Simulation, 'world'>, vmRef: string, operation: string): void {
  const reason = world.getObject('VM', vmRef).blocked_operations[operation];
  if (reason !== undefined) throw new XapiFailure('OPERATION_BLOCKED', [vmRef, reason]);
}

/** Throws `VM_BAD_POWER_STATE` unless the machine is in one of the states; the code speaks in lower case. */
export function assertPowerState(
  { world }: Pick<Simulation, 'world'>,
  vmRef: string,
  ...expected: readonly string[]
): void {
  const { power_state } = world.getObject('VM', vmRef);
  if (expected.includes(power_state)) return;
  throw new XapiFailure('VM_BAD_POWER_STATE', [vmRef, expected.join('; ').toLowerCase(), power_state.toLowerCase()]);
}

/** What a client may read in `allowed_operations`; advice only. */
export function allowedOperations(powerState: string, isSnapshot: boolean): readonly string[] {
  if (isSnapshot) return ['clone', 'copy', 'create_template', 'destroy', 'export', 'metadata_export', 'revert'];
  const always = ['changing_dynamic_range', 'changing_VCPUs', 'metadata_export', 'snapshot'];
  switch (powerState) {
    case 'Running':
      return [...always, 'checkpoint', 'clean_shutdown', 'clean_reboot', 'hard_shutdown', 'hard_reboot', 'suspend'];
    case 'Suspended':
      return [...always, 'checkpoint', 'export', 'hard_shutdown', 'resume', 'resume_on'];
    case 'Paused':
      return [...always, 'checkpoint', 'hard_shutdown', 'unpause'];
    default:
      return [...always, 'clone', 'copy', 'destroy', 'export', 'import', 'make_into_template', 'start', 'start_on'];
  }
}
