import { type CallOptions, type Clock, HostError, retry } from '../core/index.ts';
import { type Host, NULL_REF } from '../host/index.ts';

export interface DestroySnapshotOptions extends CallOptions {
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/** A transfer or an NBD connection leaves the disk attached for some seconds after its end. */
const BUSY: ReadonlySet<string> = new Set(['VDI_IN_USE', 'OTHER_OPERATION_IN_PROGRESS', 'SR_BACKEND_FAILURE_46']);
const GONE: ReadonlySet<string> = new Set(['HANDLE_INVALID', 'UUID_INVALID']);

/**
 * Removes a snapshot with its disks: `VM.destroy` alone never removes disks. Disks of the snapshot that are no snapshots
 * themselves (a CD, an ISO) are left alone; what is gone already is no error. A disk that cannot be removed does not stop
 * the others; the first failure is thrown at the end.
 */
export async function destroySnapshot(
  host: Host,
  snapshot: string,
  options: DestroySnapshotOptions = {},
): Promise<void> {
  const vm = await host.findRecord('VM', snapshot);
  if (vm === undefined) return;
  if (!vm.is_a_snapshot) throw new TypeError(`${vm.uuid} is no snapshot: it is never destroyed`);
  const disks = await host.listDisks(vm.ref);
  const vdis = disks.map(({ vdi }) => vdi).filter((vdi) => vdi.is_a_snapshot);
  const suspended = vm.suspend_VDI === NULL_REF ? undefined : await host.findRecord('VDI', vm.suspend_VDI);
  if (suspended?.is_a_snapshot === true) vdis.push(suspended);
  await destroyOne(host, 'VM', vm.ref, options);
  // One disk that the host does not give up must not keep the others: without their VM they are hard to find.
  const failures: unknown[] = [];
  for (const vdi of vdis) await destroyOne(host, 'VDI', vdi.ref, options).catch((error) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/**
 * Destroys one object; busy is waited for, gone is done.
 *
 * @internal
 */
export async function destroyOne(
  host: Host,
  type: 'VM' | 'VDI',
  ref: string,
  { signal, clock }: DestroySnapshotOptions = {},
): Promise<void> {
  try {
    await retry(() => host.callAsync(`${type}.destroy`, [ref], { signal }), {
      tries: 12,
      delayMs: 500,
      maxDelayMs: 10_000,
      when: (error) => error instanceof HostError && (error.retryable || BUSY.has(error.xapiCode)),
      signal,
      clock,
    });
  } catch (error) {
    if (!(error instanceof HostError) || !GONE.has(error.xapiCode)) throw error;
  }
}
