import { type CallOptions, type Clock, HostError, retry } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { destroyOne } from './destroy-snapshot.ts';
import type { Snapshot } from './take-snapshot.ts';

/** What became of one disk's data. */
export interface PurgeResult {
  /** The disk that it is a snapshot of. */
  readonly vdiUuid: string;
  /** The snapshot's disk. */
  readonly snapshotVdiUuid: string;
  /** Is the data gone? */
  readonly purged: boolean;
  /** Why not. */
  readonly error?: unknown;
}

/** A transfer that has just ended still holds the disk for a moment. */
const BUSY: ReadonlySet<string> = new Set(['VDI_IN_USE', 'OTHER_OPERATION_IN_PROGRESS']);

/**
 * Throws away the data of a kept snapshot's disks; their change logs stay, so that the next increment can be told from
 * them. The storage is freed at once, and nobody can go back to the snapshot. The snapshot of the VM goes first: a disk
 * that hangs on it is in use. Goes on after a failure: a disk whose data stays is as good a base.
 *
 * @see xapi-project/xen-api `ocaml/xapi/xapi_vdi.ml` `data_destroy`
 */
export async function purgeSnapshotData(
  host: Host,
  snapshot: Pick<Snapshot, 'ref' | 'disks'>,
  { signal, clock }: CallOptions & { readonly clock?: Clock | undefined } = {},
): Promise<PurgeResult[]> {
  await destroyOne(host, 'VM', snapshot.ref, { signal, clock });
  const results: PurgeResult[] = [];
  for (const { vdiUuid, snapshotVdiUuid, snapshotVdiRef, tracked } of snapshot.disks) {
    if (!tracked) continue;
    const purge = () => host.callAsync('VDI.data_destroy', [snapshotVdiRef], { signal });
    const when = (error: unknown) => error instanceof HostError && (error.retryable || BUSY.has(error.xapiCode));
    try {
      await retry(purge, { tries: 8, delayMs: 500, maxDelayMs: 10_000, when, signal, clock });
      results.push({ vdiUuid, snapshotVdiUuid, purged: true });
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof HostError)) throw error;
      results.push({ vdiUuid, snapshotVdiUuid, purged: false, error });
    }
  }
  return results;
}
