import { posix } from 'node:path';
import { FormatError } from '../core/index.ts';
import { fromVhdTime } from './constants.ts';
import type { VhdBlocksOptions } from './vhd-blocks.ts';
import { type OpenVhdLayersOptions, openVhdLayers, type VhdChain } from './vhd-chain.ts';
import { isRawParent, type ParentLink } from './vhd-link.ts';
import type { VhdIdentity } from './vhd-plan.ts';
import type { VhdDisk } from './vhd-reader.ts';
import { type WriteVhdOptions, type WrittenVhd, writeVhd } from './vhd-write.ts';

export interface MergeVhdOptions
  extends VhdBlocksOptions,
    OpenVhdLayersOptions,
    Pick<WriteVhdOptions, 'onOffset'>,
    Pick<VhdIdentity, 'uuid' | 'parent' | 'timestamp'> {}

/**
 * Merges VHDs that follow each other in a chain, oldest first, into one new file, in one pass, sector by sector; the
 * sources stay as they are. From a whole chain comes a full, also where its root is the raw image `rawParent`, from a part
 * of it a delta against the parent of the oldest one. It takes the place of the newest one: the same UUID and time unless others are given, so that children
 * of the newest one are children of the result.
 *
 * @throws FormatError `VHD_PARENT_MISMATCH` where one is not the parent of the next; `VHD_SIZE` where a disk is smaller
 * than its parent (hosts only ever grow disks, and what was cut off may not come back as zeros); what `openVhd` and `writeVhd` throw.
 */
export async function mergeVhdChain(
  paths: readonly string[],
  target: string,
  options: MergeVhdOptions = {},
): Promise<WrittenVhd> {
  await using chain = await openVhdLayers(paths, options);
  assertNoShrinking(chain);
  const newest = chain.layers.at(-1)!;
  const { rawParent, ...more } = options;
  const parent = rawParent === undefined ? linkOf(chain.layers[0]!, paths[0]!) : undefined;
  const identity = { uuid: newest.uuid, timestamp: fromVhdTime(newest.footer.timestamp), ...(parent && { parent }) };
  return await writeVhd(chain, target, { ...identity, ...given(more) });
}

function assertNoShrinking({ layers, paths }: VhdChain): void {
  for (const [i, { size }] of layers.entries()) {
    const below = layers[i - 1]?.size ?? 0;
    if (size >= below) continue;
    const expected = `at least the ${below} bytes of its parent`;
    throw new FormatError('VHD_SIZE', { what: 'disk size', offset: 48, expected, actual: size, file: paths[i] });
  }
}

/** `undefined` members would hide the defaults. */
function given<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}

function linkOf({ parent }: VhdDisk, path: string): ParentLink | undefined {
  if (parent === undefined) return undefined;
  const mismatch = { what: 'parent', offset: 512 + 40, file: path };
  if (isRawParent(parent)) {
    throw new FormatError('VHD_PARENT_RAW', { ...mismatch, expected: 'a VHD as parent', actual: 'a raw file' });
  }
  const names = [parent.name, ...parent.paths].map((name) => posix.basename(name.replaceAll('\\', '/')));
  const name = names.find((candidate) => candidate !== '') ?? `${parent.uuid}.vhd`;
  return { uuid: parent.uuid, name, timestamp: fromVhdTime(parent.timestamp) };
}
