import { BackupError, type CallOptions } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { CLEAN_UP_MS, destroyOne, removed } from '../snapshot/index.ts';
import type { PointId, Repository } from '../store/index.ts';
import { grown, importDisk } from './import-disk.ts';
import { vdiToCreate } from './vm-record.ts';

export interface RestoreDiskOptions extends CallOptions {
  /** What to restore from. */
  readonly point: PointId;
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  /** A new disk on an SR, or an existing one, which is overwritten whole and must not be in use. */
  readonly target:
    | {
        /** Uuid of the SR. */
        readonly sr: string;
        /** Of the new disk. @defaultValue `'<uuid of the source disk> at <point>'` */
        readonly name?: string | undefined;
      }
    | {
        /** Uuid of the disk. */
        readonly vdi: string;
      };
  /** Bytes sent so far, and in all. */
  readonly onSent?: ((bytes: number, total: number) => void) | undefined;
}

/**
 * Restores one disk of a point, without a VM, into a new disk or over an existing one. An existing disk that is larger
 * is filled up with zeros; a smaller one is refused. A new disk is removed again on failure; what was written over an
 * existing one cannot be taken back.
 *
 * @returns the uuid of the disk.
 * @throws BackupError `PLAN_CONFLICT` for an existing disk that is too small; `CLEAN_UP_INCOMPLETE` where a new disk is left
 * after a failure, which is the `cause`; what `Repository.openDisk` and `Host.importDisk` throw.
 */
export async function restoreDisk(
  host: Host,
  repository: Repository,
  { point, vdiUuid, target, signal, onSent }: RestoreDiskOptions,
): Promise<string> {
  await using disk = await repository.openDisk(point, vdiUuid, { signal });
  if ('vdi' in target) {
    const vdi = await host.getRecord('VDI', target.vdi);
    if (vdi.virtual_size < disk.size) {
      const message = `${vdi.name_label} (${vdi.uuid}) has ${vdi.virtual_size} bytes, the disk of the point ${disk.size}`;
      throw new BackupError('PLAN_CONFLICT', message, { facts: { vdiUuid: vdi.uuid } });
    }
    await importDisk(host, vdi.ref, grown(disk, vdi.virtual_size), { transport: 'raw', signal, onSent });
    return vdi.uuid;
  }
  const sr = await host.getRecord('SR', target.sr);
  const name = target.name ?? `${vdiUuid} at ${point.point}`;
  signal?.throwIfAborted();
  // Not cut short: a disk whose making was aborted would be nobody's.
  const ref = await host.callAsync<string>('VDI.create', [vdiToCreate({ name, size: disk.size }, sr.ref)]);
  try {
    const { uuid, virtual_size } = await host.getRecord('VDI', ref);
    await importDisk(host, ref, grown(disk, virtual_size), { transport: 'raw', signal, onSent });
    return uuid;
  } catch (error) {
    const cleared = await removed(() => destroyOne(host, 'VDI', ref, { signal: AbortSignal.timeout(CLEAN_UP_MS) }));
    if (cleared.state === 'removed') throw error;
    throw new BackupError('CLEAN_UP_INCOMPLETE', `the new disk ${name} is left on the host: ${cleared.error}`, {
      cause: error,
      facts: { name, srUuid: sr.uuid },
    });
  }
}
