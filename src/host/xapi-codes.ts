/**
 * The host's own error strings, copied exactly (odd spellings are theirs), in the sets by which we act. Sources:
 * xapi-project/xen-api `ocaml/xapi-consts/api_errors.ml`; for `SR_BACKEND_FAILURE_*` xapi-project/sm
 * `libs/sm/core/XE_SR_ERRORCODES.xml`.
 */

/** The same call has a fair chance a little later. */
export const RETRYABLE: ReadonlySet<string> = new Set([
  'HOST_STILL_BOOTING',
  'HOST_IN_EMERGENCY_MODE',
  'HOST_OFFLINE',
  'CANNOT_CONTACT_HOST',
  'TLS_CONNECTION_FAILED',
  'CLIENT_ERROR', // the connection of a transfer ended, and not by us: what we abort is no error of the host
  'OTHER_OPERATION_IN_PROGRESS',
  'TOO_MANY_PENDING_TASKS',
  'TOO_MANY_STORAGE_MIGRATES',
  'NOT_SUPPORTED_DURING_UPGRADE',
  'VDI_IN_USE', // dom0 lets go of a disk some seconds after a transfer
  'DEVICE_DETACH_TIMEOUT',
  'DEVICE_DETACH_REJECTED',
  'SR_BACKEND_FAILURE_46', // cannot attach: "not detached cleanly", or in use for writing
  'SR_BACKEND_FAILURE_80',
  'SR_BACKEND_FAILURE_81',
  'SR_BACKEND_FAILURE_82',
  'SR_BACKEND_FAILURE_457',
  'SR_BACKEND_FAILURE_458',
]);

/** The object is not there (any more). */
export const GONE: ReadonlySet<string> = new Set(['HANDLE_INVALID', 'UUID_INVALID']);

/** This release of the host does not have the call, or not with these arguments. */
export const NOT_OFFERED: ReadonlySet<string> = new Set([
  'MESSAGE_METHOD_UNKNOWN',
  'MESSAGE_REMOVED',
  'MESSAGE_PARAMETER_COUNT_MISMATCH',
]);

/** The edition or licence of the host forbids it. The first one is spelt with C. */
export const NOT_LICENSED: ReadonlySet<string> = new Set(['LICENCE_RESTRICTION', 'FEATURE_RESTRICTED']);

/** Changed block tracking cannot answer for this pair of disks: read the whole disk. */
export const CBT_UNAVAILABLE: ReadonlySet<string> = new Set([
  ...GONE,
  ...NOT_OFFERED,
  ...NOT_LICENSED,
  'VDI_INCOMPATIBLE_TYPE',
  'VDI_NO_CBT_METADATA',
  'SR_OPERATION_NOT_SUPPORTED',
  'SR_BACKEND_FAILURE_66', // tracking on a raw disk
  'SR_BACKEND_FAILURE_459', // the logs do not fit together
  'SR_BACKEND_FAILURE_460', // unrelated, the same, the wrong way round, or the chain was broken
]);

/** No snapshot before the host has cleaned up: another one makes it worse. */
export const STORAGE_CHAIN_FULL: ReadonlySet<string> = new Set(['SR_BACKEND_FAILURE_109']);

/** No room. */
export const STORAGE_FULL: ReadonlySet<string> = new Set(['SR_FULL', 'SR_BACKEND_FAILURE_44']);

/** The session is over; a new login may help. */
export const SESSION_OVER = 'SESSION_INVALID';

/** What a person should know, by code; the host's parameters follow it in the message. */
const EXPLANATIONS: Readonly<Record<string, string>> = {
  SESSION_AUTHENTICATION_FAILED: 'the host does not accept this user and password',
  SESSION_INVALID: 'the session has ended: idle for a day, pushed out by newer sessions, or the toolstack restarted',
  HOST_IS_SLAVE: 'this host is a member of a pool: use the address of its coordinator',
  HOST_STILL_BOOTING: 'the toolstack is starting',
  HOST_IN_EMERGENCY_MODE: 'the host is cut off from its pool',
  HOST_OFFLINE: 'the host is down',
  CANNOT_CONTACT_HOST: 'the coordinator cannot reach the host',
  RBAC_PERMISSION_DENIED:
    'the role of this user is too small: vm-admin is needed, pool-admin for the purposes of networks',
  LICENCE_RESTRICTION: 'the licence of the host does not include this',
  FEATURE_RESTRICTED: 'the licence of the host does not include this',
  MESSAGE_METHOD_UNKNOWN: 'this release of the host does not have the call',
  MESSAGE_REMOVED: 'this release of the host no longer has the call',
  MESSAGE_PARAMETER_COUNT_MISMATCH: 'this release of the host has the call with other arguments',
  HANDLE_INVALID: 'the object is gone',
  UUID_INVALID: 'there is no object with this uuid',
  OTHER_OPERATION_IN_PROGRESS: 'another operation holds the object',
  OPERATION_BLOCKED: 'somebody blocked this operation',
  TOO_MANY_PENDING_TASKS: 'the host is overloaded',
  TASK_CANCELLED: 'the task was cancelled on the host',
  VM_BAD_POWER_STATE: 'the VM is in the wrong power state',
  VM_HAS_VUSBS: 'a VM with USB passthrough cannot be snapshotted',
  VDI_IN_USE: 'the disk is attached',
  VDI_IO_ERROR: 'the host could not read or write the disk, or not understand the stream',
  VDI_TOO_LARGE: 'the disk is larger than a VHD can be',
  VDI_INCOMPATIBLE_TYPE: 'a disk of this type cannot do this',
  VDI_MISSING: 'the data of the disk is missing on its storage',
  VDI_IS_SHARABLE: 'a shared disk cannot be snapshotted',
  SR_NOT_ATTACHED: 'the storage repository is not attached',
  SR_HAS_NO_PBDS: 'the storage repository is not attached',
  SR_FULL: 'the storage repository is full',
  SR_OPERATION_NOT_SUPPORTED: 'this kind of storage repository cannot do this',
  SR_BACKEND_FAILURE_44: 'the storage repository has no room (thick storage needs the full size for a snapshot)',
  SR_BACKEND_FAILURE_46: 'the disk cannot be attached: in use for writing, or not detached cleanly',
  SR_BACKEND_FAILURE_109: 'the chain of snapshots is too long: let the host coalesce before the next one',
  SR_BACKEND_FAILURE_459: 'the change logs do not fit together',
  SR_BACKEND_FAILURE_460: 'the two disks are not related by changed block tracking',
  NETWORK_INCOMPATIBLE_PURPOSES: 'NBD with TLS and NBD without cannot be offered by one pool at the same time',
  NOT_SUPPORTED_DURING_UPGRADE: 'the pool is being upgraded',
  DEFAULT_SR_NOT_FOUND: 'the pool has no default storage repository: name one',
  INTERNAL_ERROR: 'the host failed in a way it has no name for',
};

/** One sentence for people: what was tried, what the host said. */
export function describe(code: string, params: readonly string[], doing: string): string {
  const said = params.filter((param) => param !== '').join(', ');
  const explanation = Object.hasOwn(EXPLANATIONS, code) ? EXPLANATIONS[code] : undefined;
  return `${doing}: ${explanation === undefined ? code : `${explanation} (${code})`}${said === '' ? '' : `: ${said}`}`;
}
