import type { MethodTable } from './method.ts';
import { eventMethods } from './methods-event.ts';
import { genericMethods } from './methods-generic.ts';
import { sessionMethods } from './methods-session.ts';
import { taskMethods } from './methods-task.ts';

/** Every method of the simulated host. Later tables replace what earlier ones have under the same name. */
export function allMethods(): MethodTable {
  const table: MethodTable = {
    ...genericMethods(),
    ...sessionMethods(() => Object.keys(table)),
    ...taskMethods,
    ...eventMethods,
  };
  return table;
}
