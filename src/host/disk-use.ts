import { type BackupError, type Clock, createLog } from '../core/index.ts';
import type { RecordReader } from './record-reader.ts';
import type { Ref } from './records.ts';
import type { Session } from './session.ts';
import { settledWithin } from './settled-within.ts';
import { isGone } from './tasks.ts';
import type { Timeouts } from './timeouts.ts';

const log = createLog('host:disk-use');

/** Between two looks, in milliseconds. */
const FIRST_LOOK_MS = 50;
const SLOWEST_LOOK_MS = 2000;

/**
 * Which disks we use now. The host attaches a disk to its control domain for each transfer and NBD connection, and takes
 * some seconds to detach it afterwards; until then the disk can be neither written, nor purged, nor destroyed.
 */
export interface DiskUse {
  /**
   * Notes that the disk is in use. The function returned ends that, and waits, if nobody here uses the disk any more,
   * until the host has let go. The wait is bounded, and never fails: whoever uses the disk next is told.
   */
  begin(vdi: Ref): () => Promise<void>;
}

export function createDiskUse(session: Session, records: RecordReader, timeouts: Timeouts, clock: Clock): DiskUse {
  const users = new Map<Ref, number>();

  function change(vdi: Ref, by: 1 | -1): number {
    const count = (users.get(vdi) ?? 0) + by;
    if (count > 0) users.set(vdi, count);
    else users.delete(vdi);
    return count;
  }

  async function isHeld(vdi: Ref): Promise<boolean> {
    const vbds = await session.call<readonly Ref[]>('VDI.get_VBDs', vdi);
    const found = await Promise.all(vbds.map((vbd) => records.find('VBD', vbd)));
    const holders = await Promise.all(found.map((vbd) => (vbd === undefined ? undefined : records.find('VM', vbd.VM))));
    return holders.some((vm) => vm?.is_control_domain === true);
  }

  async function lookUntilLetGo(vdi: Ref, end: number): Promise<void> {
    for (let lookMs = FIRST_LOOK_MS; await isHeld(vdi); lookMs = Math.min(lookMs * 2, SLOWEST_LOOK_MS)) {
      if (clock.now() >= end) {
        log.debug('the host still holds a disk', { waitedMs: timeouts.cleanUpMs });
        return;
      }
      await clock.sleep(lookMs);
    }
  }

  async function untilLetGo(vdi: Ref): Promise<void> {
    const ms = timeouts.cleanUpMs;
    try {
      const looking = lookUntilLetGo(vdi, clock.now() + ms);
      if (!(await settledWithin(looking, ms + SLOWEST_LOOK_MS, clock))) log.debug('no answer whether a disk is held');
    } catch (error) {
      if (!isGone(error))
        log.debug('cannot see whether the host let go of a disk', { code: (error as BackupError).code });
    }
  }

  return {
    begin(vdi) {
      change(vdi, 1);
      let ended: Promise<void> | undefined;
      return () => {
        ended ??= change(vdi, -1) > 0 ? Promise.resolve() : untilLetGo(vdi);
        return ended;
      };
    },
  };
}
