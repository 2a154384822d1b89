import { type CallOptions, HostError } from '../core/index.ts';
import type { Host } from '../host/index.ts';

/** What became of one disk. */
export interface TrackingResult {
  /** The disk. */
  readonly vdiUuid: string;
  /** `already`: it was as asked for. `refused`: the host will not, see `xapiCode`. */
  readonly state: 'changed' | 'already' | 'refused';
  /** The host's refusal. */
  readonly xapiCode?: string | undefined;
  /** The refusal in words. */
  readonly reason?: string | undefined;
}

/** Answers that are about this disk or licence, and say that tracking is not to be had: not a failing host. */
const REFUSALS: ReadonlySet<string> = new Set([
  'LICENCE_RESTRICTION',
  'FEATURE_RESTRICTED',
  'MESSAGE_METHOD_UNKNOWN',
  'OPERATION_NOT_ALLOWED',
  'SR_BACKEND_FAILURE_66', // raw disks
  'SR_BACKEND_FAILURE_457',
  'SR_BACKEND_FAILURE_458',
  'SR_OPERATION_NOT_SUPPORTED',
  'VDI_INCOMPATIBLE_TYPE',
  'VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION',
]);

/**
 * Turns changed block tracking on for each disk that has it off. A disk that the host refuses is told, and does not stop
 * the others. While tracking is on, the host refuses to move the disk to other storage (`VDI_CBT_ENABLED`).
 *
 * @param vdis uuids or references of live disks.
 * @throws HostError where the host fails otherwise, for example with `HANDLE_INVALID`.
 */
export function enableChangedBlockTracking(
  host: Host,
  vdis: readonly string[],
  options: CallOptions = {},
): Promise<TrackingResult[]> {
  return setTracking(host, vdis, true, options);
}

/** Turns changed block tracking off; the next incremental of these disks is then a full. */
export function disableChangedBlockTracking(
  host: Host,
  vdis: readonly string[],
  options: CallOptions = {},
): Promise<TrackingResult[]> {
  return setTracking(host, vdis, false, options);
}

async function setTracking(
  host: Host,
  vdis: readonly string[],
  on: boolean,
  { signal }: CallOptions,
): Promise<TrackingResult[]> {
  const results: TrackingResult[] = [];
  // One after another: each call pauses the disk for a moment, and a guest should not lose all its disks at once.
  for (const id of vdis) {
    const vdi = await host.getRecord('VDI', id);
    if ((vdi.cbt_enabled ?? false) === on) {
      results.push({ vdiUuid: vdi.uuid, state: 'already' });
      continue;
    }
    try {
      await host.callAsync(on ? 'VDI.enable_cbt' : 'VDI.disable_cbt', [vdi.ref], { signal });
      results.push({ vdiUuid: vdi.uuid, state: 'changed' });
    } catch (error) {
      if (!(error instanceof HostError) || !REFUSALS.has(error.xapiCode)) throw error;
      results.push({ vdiUuid: vdi.uuid, state: 'refused', xapiCode: error.xapiCode, reason: error.message });
    }
  }
  return results;
}
