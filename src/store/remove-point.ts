import { BackupError, type CallOptions } from '../core/index.ts';
import { manifestName, pointOfName, vmFolder } from './layout.ts';
import type { PointId } from './manifest.ts';
import { basesOf, LONGEST_MANIFEST, pointsAmong, readManifest, readWhole } from './points.ts';
import type { RemoveOptions } from './repository.ts';
import type { Store } from './store.ts';

/**
 * Removes a point and its files. See `Repository.remove`. Files are found by their names, so a point that cannot be
 * read, or whose removal was cut short, is removed as well.
 */
export async function removePoint(
  store: Store,
  id: PointId,
  { force = false, signal }: RemoveOptions = {},
): Promise<void> {
  const manifest = manifestName(id);
  const { names, complete } = await store.list(vmFolder(id.vmUuid), { signal });
  const own = names.filter((name) => pointOfName(name) === id.point);
  if (own.length === 0) {
    throw new BackupError('NOT_FOUND', `there is no point ${id.point} of VM ${id.vmUuid}`, { facts: { ...id } });
  }
  if (!force) {
    if (!complete) {
      throw new BackupError('POINT_NEEDED', `${manifest}: the store cannot tell all its names, so none is removed`, {
        facts: { ...id, neededBy: [] },
      });
    }
    await refuseWhereNeeded(store, id, pointsAmong(names), { signal });
  }
  // From here on the point is gone for every reader; what a failure leaves are files of no point.
  if (force || !own.includes(manifest)) await store.remove(manifest, { signal });
  else await removeManifest(store, id, new Set(names), { signal });
  for (const name of own) if (name !== manifest) await store.remove(name, { signal });
}

/**
 * Removes the manifest, then looks whether a point was committed on it meanwhile, and puts it back if so. Who commits
 * looks for the base after the own manifest is there: of the two at least one sees the other.
 */
async function removeManifest(
  store: Store,
  id: PointId,
  before: ReadonlySet<string>,
  options: CallOptions,
): Promise<void> {
  const manifest = manifestName(id);
  const bytes = await readWhole(store, manifest, LONGEST_MANIFEST, options);
  await store.remove(manifest, options);
  try {
    const { names } = await store.list(vmFolder(id.vmUuid)); // not to be stopped halfway, so without the signal
    await refuseWhereNeeded(store, id, pointsAmong(names.filter((name) => !before.has(name))), {});
  } catch (error) {
    await store.write(manifest, bytes);
    throw error;
  }
}

async function refuseWhereNeeded(
  store: Store,
  id: PointId,
  points: readonly PointId[],
  options: CallOptions,
): Promise<void> {
  const neededBy: string[] = [];
  for (const { point } of points) {
    if (point === id.point) continue;
    const bases = basesOf(await readManifest(store, { vmUuid: id.vmUuid, point }, options));
    if (bases.has(id.point)) neededBy.push(point);
  }
  if (neededBy.length === 0) return;
  throw new BackupError('POINT_NEEDED', `${manifestName(id)}: needed by ${neededBy.join(', ')}`, {
    facts: { ...id, neededBy },
  });
}
