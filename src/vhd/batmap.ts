import { type ByteSource, readBytes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { SECTOR_SIZE } from './constants.ts';
import { error, type VhdFinding, warning } from './findings.ts';
import type { VhdFooter } from './footer.ts';

const BATMAP_COOKIE = 'tdbatmap';
const BATMAP_SINCE = 0x00010002;
const LARGEST_MAP = 1024 * 1024;

/**
 * Faults of XenServer's private map of full blocks, which lies right behind the block table in files whose creator is
 * `tap` (blktap `include/vhd.h`, `vhd/lib/libvhd.c`). We never use it: the sector bitmaps say the same, and a wrong map
 * would hide data. All of it is worth a warning, but for the mark of an encrypted disk.
 */
export async function checkBatmap(
  source: ByteSource,
  footer: VhdFooter,
  at: number,
  dataEnd: number,
  options?: CallOptions,
): Promise<VhdFinding[]> {
  if (!footer.creatorApplication.startsWith('tap') || footer.creatorVersion < BATMAP_SINCE) return [];
  const missing = (actual: string) => [warning('VHD_BATMAP', 'batmap', at, 'what creator "tap" promises', actual)];
  if (at + SECTOR_SIZE > dataEnd) return missing('the end of the file');
  const head = Buffer.from((await readBytes(source, at, SECTOR_SIZE, options)).buffer);
  if (head.toString('latin1', 0, 8) !== BATMAP_COOKIE) return missing('none');
  if (head[29] === 1) return [error('VHD_ENCRYPTED', 'batmap: key hash', at + 29, 'none', 'an encrypted disk')];

  const offset = head.readBigUInt64BE(8);
  const length = head.readUInt32BE(16) * SECTOR_SIZE;
  if (length > LARGEST_MAP || offset + BigInt(length) > BigInt(dataEnd)) return missing('a map outside the file');
  const used = Math.max(Math.ceil(Math.floor(footer.currentSize / 2 ** 24) / SECTOR_SIZE), 1) * SECTOR_SIZE;
  if (used > length) return missing(`a map of ${length} bytes for one of ${used}`);
  const map = await readBytes(source, Number(offset), used, options);
  const computed = ~map.reduce((sum, byte) => sum + byte, 0) >>> 0;
  const stored = head.readUInt32BE(24);
  return computed === stored ? [] : [warning('VHD_BATMAP', 'batmap: checksum', at + 24, computed, stored)];
}
