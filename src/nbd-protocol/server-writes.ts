import type { CallOptions } from '../core/index.ts';
import type { Disk, WritableDisk } from '../disk/index.ts';
import { COMMAND, COMMAND_FLAG } from './constants.ts';
import type { RequestHeader } from './messages.ts';

/** A disk that can be told which content is no longer needed; it is undefined afterwards. */
interface TrimmableDisk extends WritableDisk {
  trim(offset: number, length: number, options?: CallOptions): Promise<void>;
}

/** Can it be written to? One that has the members, but says `readOnly`, cannot: an `NbdDisk` may be such. */
export function isWritable(disk: Disk): disk is WritableDisk {
  return 'write' in disk && !('readOnly' in disk && disk.readOnly === true);
}

export function canTrim(disk: Disk): disk is TrimmableDisk {
  return isWritable(disk) && 'trim' in disk && typeof disk.trim === 'function';
}

/**
 * Does what a request without an answer of its own asks for; it is in order, and `data` is that of a WRITE. With FUA
 * it resolves when what was written is durable (spec, "NBD_CMD_FLAG_FUA"). A CACHE is a hint, and nothing is done.
 */
export async function performWrite(
  disk: Disk,
  { type, flags, offset, length }: RequestHeader,
  data: Uint8Array | undefined,
  options: CallOptions,
): Promise<void> {
  if (!isWritable(disk)) return; // only hints, and a flush of what nobody can have written, come as far as this
  if (type === COMMAND.WRITE) await disk.write(data!, offset, options);
  else if (type === COMMAND.WRITE_ZEROES) await disk.writeZeroes(offset, length, options);
  else if (type === COMMAND.TRIM && canTrim(disk)) await disk.trim(offset, length, options);
  if (type === COMMAND.FLUSH || (flags & COMMAND_FLAG.FUA) !== 0) await disk.flush(options);
}
