import { availableMethods } from './availability.ts';
import type { MethodTable } from './method.ts';
import { deviceMethods } from './methods-devices.ts';
import { eventMethods } from './methods-event.ts';
import { genericMethods } from './methods-generic.ts';
import { infrastructureMethods } from './methods-infrastructure.ts';
import { sessionMethods } from './methods-session.ts';
import { taskMethods } from './methods-task.ts';
import { vdiMethods } from './methods-vdi.ts';
import { vmMethods } from './methods-vm.ts';
import type { Profile } from './profiles.ts';

/** Every method of the simulated release. Later tables replace what earlier ones have under the same name. */
export function methodsOf(profile: Profile): MethodTable {
  const all: MethodTable = {
    ...genericMethods(),
    ...sessionMethods(() => Object.keys(table)),
    ...taskMethods,
    ...eventMethods,
    ...infrastructureMethods,
    ...vmMethods,
    ...deviceMethods,
    ...vdiMethods,
  };
  const table = availableMethods(all, profile);
  return table;
}
