import { randomUUID } from 'node:crypto';
import { chmod, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError } from '../core/index.ts';
import { fromVhdTime } from './constants.ts';
import { syncFolder } from './sync-folder.ts';
import type { VhdBlocksOptions } from './vhd-blocks.ts';
import type { ParentLink } from './vhd-link.ts';
import { openVhd } from './vhd-reader.ts';
import { type WrittenVhd, writeVhd } from './vhd-write.ts';

/**
 * Makes `parentPath`, a VHD in the same folder, the parent of the differencing VHD at `path`: UUID, time, name and all
 * locators. The file is written anew beside the old one, in our layout, and then put in its place at once, so that a
 * crash leaves the old or the new one. It keeps its own UUID, time and content; nothing tells whether the content fits
 * the new parent, that is for the caller to know.
 *
 * @throws FormatError `VHD_DISK_TYPE` where `path` is no differencing VHD, `VHD_PARENT_REFUSED` where the parent lies
 * elsewhere; what `openVhd` throws for either file.
 */
export async function relinkVhd(path: string, parentPath: string, options: VhdBlocksOptions = {}): Promise<WrittenVhd> {
  const target = await realpath(path);
  const folder = dirname(target);
  if ((await realpath(dirname(parentPath))) !== folder) {
    const at = { what: 'parent', offset: 0, expected: `a file in ${folder}`, actual: parentPath, file: path };
    throw new FormatError('VHD_PARENT_REFUSED', at);
  }
  const parent = { ...(await identify(parentPath, options)), name: basename(parentPath) };
  const temporary = join(folder, `.${basename(target)}.${randomUUID()}.tmp`);
  const written = await copyWithParent(target, temporary, parent, options);
  try {
    await chmod(temporary, (await stat(target)).mode);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
  return written;
}

async function copyWithParent(
  path: string,
  target: string,
  parent: ParentLink,
  options: VhdBlocksOptions,
): Promise<WrittenVhd> {
  await using disk = await openVhd(path, { signal: options.signal });
  if (disk.kind !== 'differencing') {
    const at = { what: 'footer: disk type', offset: 60, expected: 'differencing', actual: disk.kind, file: path };
    throw new FormatError('VHD_DISK_TYPE', at);
  }
  const timestamp = fromVhdTime(disk.footer.timestamp);
  return await writeVhd(disk, target, { ...options, uuid: disk.uuid, timestamp, parent });
}

async function identify(path: string, { signal }: VhdBlocksOptions): Promise<{ uuid: string; timestamp: Date }> {
  await using disk = await openVhd(path, { signal });
  return { uuid: disk.uuid, timestamp: (await stat(path)).mtime };
}
