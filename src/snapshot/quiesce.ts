import { BackupError, type CallOptions, type HookReport, HostError } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { destroySnapshot } from './destroy-snapshot.ts';
import { markSnapshot } from './mark-snapshot.ts';
import { isUnmarkedWork, type OwnerMark } from './ownership.ts';

/**
 * `never`: the host is not asked. `prefer`: it is asked where the guest has tools, and a plain snapshot follows where it
 * cannot. `require`: rejects instead.
 */
export type QuiesceMode = 'never' | 'prefer' | 'require';

/** How consistent a snapshot was to be, is, and why these are not the same. */
export interface SnapshotConsistency {
  /** What was asked for. */
  readonly requested: 'quiesced' | 'crash-consistent';
  /** What it is. */
  readonly achieved: 'quiesced' | 'crash-consistent';
  /** Why that is less. */
  readonly reason?: string | undefined;
}

/** Who is told how a snapshot came about. */
export interface SnapshotObserver {
  /** Another way than asked for is taken. */
  fallBack(subject: string, from: string, to: string, reason: string): void;
  /** A hook has ended, however it did. */
  hookEnded(report: HookReport): void;
  /** A person should know of it. */
  warn(code: string, message: string): void;
}

export interface QuiesceSettings extends CallOptions {
  readonly mode: QuiesceMode;
  /** The name of the snapshot: it says which run it belongs to. */
  readonly name: string;
  readonly by: Omit<OwnerMark, 'uuid' | 'state'>;
  readonly observer?: SnapshotObserver | undefined;
}

/** What the host's codes mean; sources are in host/xapi-codes.ts. */
const REASONS: Readonly<Record<string, string>> = {
  MESSAGE_METHOD_UNKNOWN: 'this host has no quiesced snapshots',
  MESSAGE_REMOVED: 'this host has no quiesced snapshots any more: they ended with release 8.0',
  LICENCE_RESTRICTION: 'the licence of the pool has no quiesced snapshots',
  FEATURE_RESTRICTED: 'the edition of the pool has no quiesced snapshots',
  VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED: 'the tools in the guest do not offer it',
  VM_SNAPSHOT_WITH_QUIESCE_PLUGIN_DEOS_NOT_RESPOND: 'the VSS service in the guest does not respond',
  VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT: 'the guest did not get ready in time',
  VM_SNAPSHOT_WITH_QUIESCE_FAILED: 'it failed in the guest',
  OPERATION_BLOCKED: 'somebody blocked it on the host',
  VM_BAD_POWER_STATE: 'the VM does not run any more',
};

/**
 * Takes the snapshot: quiesced, if that is wanted and can be had, else by `takePlain`. What a failing host leaves
 * half-made is removed before.
 *
 * @returns the reference of the snapshot, not marked yet
 * @throws BackupError `QUIESCE_UNAVAILABLE` with the mode `require`
 */
export async function quiesceOrNot(
  host: Host,
  vm: VmRecord,
  settings: QuiesceSettings,
  takePlain: () => Promise<string>,
): Promise<{ readonly ref: string; readonly consistency: SnapshotConsistency }> {
  const { mode, observer } = settings;
  if (mode === 'never') {
    return { ref: await takePlain(), consistency: { requested: 'crash-consistent', achieved: 'crash-consistent' } };
  }
  const attempt = await tryToQuiesce(host, vm, settings);
  if ('ref' in attempt) return { ...attempt, consistency: { requested: 'quiesced', achieved: 'quiesced' } };
  const { reason, cause } = attempt;
  if (mode === 'require') {
    const message = `${vm.name_label} (${vm.uuid}): a quiesced snapshot was required, and cannot be had: ${reason}`;
    throw new BackupError('QUIESCE_UNAVAILABLE', message, { cause, facts: { vmUuid: vm.uuid, reason } });
  }
  observer?.fallBack('vm', 'quiesced', 'crash-consistent', reason);
  return { ref: await takePlain(), consistency: { requested: 'quiesced', achieved: 'crash-consistent', reason } };
}

type Attempt = { readonly ref: string } | { readonly reason: string; readonly cause?: unknown };

async function tryToQuiesce(host: Host, vm: VmRecord, settings: QuiesceSettings): Promise<Attempt> {
  const { name, signal } = settings;
  const reason = await whyNotAsked(host, vm);
  if (reason !== undefined) return { reason };
  const before = await looseSnapshots(host, vm);
  try {
    return { ref: await host.callAsync<string>('VM.snapshot_with_quiesce', [vm.ref, name], { signal }) };
  } catch (error) {
    if (!(error instanceof HostError) || !isNoToQuiescing(error.xapiCode)) throw error;
    await removeHalfMade(host, vm, settings);
    await tellOfLooseDisks(host, vm, new Set(before), settings);
    const said = [error.xapiCode, ...error.xapiParams.filter((param) => param !== '' && param !== vm.ref)].join(', ');
    return { reason: `${REASONS[error.xapiCode] ?? 'it failed in the guest'} (${said})`, cause: error };
  }
}

/** Why the host need not even be asked. Whether the tools can quiesce is the host's to say. */
async function whyNotAsked(host: Host, { uuid }: VmRecord): Promise<string | undefined> {
  const { power_state, guest_metrics } = await host.getRecord('VM', uuid);
  if (power_state !== 'Running') return `the VM is ${power_state.toLowerCase()}: nobody is there to get ready`;
  const metrics = await host.findRecord('VM_guest_metrics', guest_metrics);
  const { PV_drivers_detected: detected, PV_drivers_version: version = {} } = metrics ?? {};
  return detected === true || Object.keys(version).length > 0 ? undefined : 'no tools are installed in the guest';
}

/** Did the host, or the guest, say that it cannot quiesce? Any other failure is one that a plain snapshot meets, too. */
function isNoToQuiescing(code: string): boolean {
  return /^(?:VM_SNAPSHOT_WITH_QUIESCE_|XEN_VSS_REQ_ERROR_)/.test(code) || Object.hasOwn(REASONS, code);
}

/**
 * A host that fails may leave behind what the guest's tools have made. It is marked before it is removed, so that what
 * cannot be removed now is found by a later run.
 */
async function removeHalfMade(host: Host, vm: VmRecord, { by, observer, signal }: QuiesceSettings): Promise<void> {
  for (const snapshot of await host.listRecords('VM')) {
    if (!isUnmarkedWork(snapshot, vm, by.runId)) continue;
    try {
      await markSnapshot(host, snapshot.ref, by, { signal });
      await destroySnapshot(host, snapshot.ref, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      observer?.warn('SNAPSHOT_LEFT', `could not remove the half-made snapshot ${snapshot.uuid}: ${String(error)}`);
    }
  }
}

/**
 * Where VSS froze only some of the disks, the tools snapshot these one by one, and the host then calls it a failure.
 * Nothing proves that such disks are ours, so they are told and left alone.
 */
async function tellOfLooseDisks(
  host: Host,
  vm: VmRecord,
  before: ReadonlySet<string>,
  { observer }: QuiesceSettings,
): Promise<void> {
  const made = (await looseSnapshots(host, vm)).filter((uuid) => !before.has(uuid));
  if (made.length === 0) return;
  const message = `the failed quiescing may have left snapshots of disks: ${made.join(', ')}; look at them, and remove them`;
  observer?.warn('SNAPSHOT_LEFT', message);
}

/** Snapshots of the VM's disks that hang on no VM, by uuid. */
async function looseSnapshots(host: Host, vm: VmRecord): Promise<string[]> {
  const disks = new Set((await host.listDisks(vm.ref)).map(({ vdi }) => vdi.ref));
  const vdis = await host.listRecords('VDI');
  return vdis.filter((vdi) => disks.has(vdi.snapshot_of) && vdi.VBDs.length === 0).map(({ uuid }) => uuid);
}
