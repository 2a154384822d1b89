import { assertPlugged, attachedVbds } from './attach.ts';
import type { Simulation } from './simulation.ts';
import { storageCan } from './storage-drivers.ts';
import { XapiFailure } from './world.ts';

/** What can be done to a disk, in the host's words. */
export type VdiOperation =
  | 'clone'
  | 'copy'
  | 'data_destroy'
  | 'destroy'
  | 'disable_cbt'
  | 'enable_cbt'
  | 'get_nbd_info'
  | 'list_changed_blocks'
  | 'resize'
  | 'snapshot';

/** All that a disk whose data was destroyed still does. */
const LEFT_TO_METADATA: ReadonlySet<VdiOperation> = new Set(['list_changed_blocks', 'destroy', 'data_destroy']);
const NEEDS_SNAPSHOTS: ReadonlySet<VdiOperation> = new Set(['snapshot', 'clone']);
const NEEDS_TRACKING: ReadonlySet<VdiOperation> = new Set([
  'enable_cbt',
  'disable_cbt',
  'data_destroy',
  'list_changed_blocks',
]);
const NOT_ON_RESET: ReadonlySet<VdiOperation> = new Set(['snapshot', 'clone', 'resize', 'enable_cbt', 'disable_cbt']);

/**
 * Throws what the host throws if the operation is not possible now.
 *
 * @see xapi-project/xen-api `ocaml/xapi/xapi_vdi.ml` `check_operation_error`
 */
export function assertVdiOperation(simulation: Simulation, vdiRef: string, operation: VdiOperation): void {
  const { world } = simulation;
  const vdi = world.getObject('VDI', vdiRef);
  const { type: srType } = world.getObject('SR', vdi.SR);
  const busy = world.faults.take('vdi-in-use', ({ vdi: wanted, operation: which }) => {
    return which === operation && (wanted === undefined || wanted === vdi.uuid || wanted === vdiRef);
  });
  if (busy !== undefined) throw new XapiFailure('VDI_IN_USE', [vdiRef, operation]);
  if (vdi.missing) throw new XapiFailure('VDI_MISSING', [vdi.SR, vdiRef]);
  assertPlugged(simulation, vdi.SR);
  if (vdi.type === 'cbt_metadata' && !LEFT_TO_METADATA.has(operation)) {
    throw new XapiFailure('VDI_INCOMPATIBLE_TYPE', [vdiRef, vdi.type]);
  }
  if (!vdi.managed) throw new XapiFailure('VDI_NOT_MANAGED', [vdiRef]);
  if (vdi.sharable && operation === 'snapshot') throw new XapiFailure('VDI_IS_SHARABLE', [vdiRef]);
  if (vdi.on_boot === 'reset' && NOT_ON_RESET.has(operation)) {
    throw new XapiFailure('VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION', []);
  }
  const feature = NEEDS_SNAPSHOTS.has(operation)
    ? 'VDI_SNAPSHOT'
    : NEEDS_TRACKING.has(operation)
      ? 'VDI_CONFIG_CBT'
      : operation === 'resize'
        ? 'VDI_RESIZE'
        : undefined;
  if (feature !== undefined && !storageCan(srType, feature)) {
    throw new XapiFailure('SR_OPERATION_NOT_SUPPORTED', [vdi.SR]);
  }
  if (vdi.sm_config['type'] === 'raw' && NEEDS_SNAPSHOTS.has(operation)) {
    throw new XapiFailure('UNIMPLEMENTED_IN_SM_BACKEND', [vdi.SR]);
  }
  const holders = attachedVbds(simulation, vdiRef);
  if (holders.length > 0 && ['destroy', 'resize'].includes(operation)) {
    throw new XapiFailure('VDI_IN_USE', [vdiRef, operation]);
  }
}
