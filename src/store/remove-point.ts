import { BackupError, type CallOptions, type Clock } from '../core/index.ts';
import { acquireLease } from './acquire-lease.ts';
import { manifestName, pointOfName, vmFolder } from './layout.ts';
import type { Lease } from './lease.ts';
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
  clock: Clock,
  { force = false, waitMs, signal }: RemoveOptions = {},
): Promise<void> {
  if (force) return removeAlone(store, id, { force, signal });
  await using _ = await acquireLease(store, id.vmUuid, clock, { purpose: 'remove', waitMs, signal });
  await removeAlone(store, id, { force, signal });
}

/** As {@link removePoint}, by the VM's only writer. */
async function removeAlone(store: Store, id: PointId, { force, signal }: RemoveOptions): Promise<void> {
  const manifest = manifestName(id);
  const { names, complete } = await store.list(vmFolder(id.vmUuid), { signal });
  const own = names.filter((name) => pointOfName(name) === id.point);
  if (own.length === 0) {
    throw new BackupError('NOT_FOUND', `there is no point ${id.point} of VM ${id.vmUuid}`, { facts: { ...id } });
  }
  if (force !== true) {
    if (!complete) {
      throw new BackupError('POINT_NEEDED', `${manifest}: the store cannot tell all its names, so none is removed`, {
        facts: { ...id, neededBy: [] },
      });
    }
    await refuseWhereNeeded(store, id, pointsAmong(names), { signal });
  }
  // From here on the point is gone for every reader; what a failure leaves are files of no point.
  if (force === true || !own.includes(manifest)) await store.remove(manifest, { signal });
  else await removeManifest(store, id, new Set(names), { signal });
  await removeFiles(store, own, manifest);
}

/** Not to be stopped halfway, so without a signal: few calls, and what they leave would be files of no point. */
async function removeFiles(store: Store, own: readonly string[], manifest: string): Promise<void> {
  for (const name of own) if (name !== manifest) await store.remove(name);
}

/** What became of a point that was to be removed. */
export type Removal = { readonly point: string } & (
  | { readonly outcome: 'removed' | 'gone' }
  | { readonly outcome: 'kept'; readonly reason: string }
);

/**
 * Removes points of the lease's VM, those that others need after those others. Each manifest is read once. What is needed by a
 * point that stays is kept, and all are where that cannot be known. Cut short, it can be repeated.
 */
export async function removePoints(
  store: Store,
  lease: Lease,
  points: readonly string[],
  { signal }: CallOptions = {},
): Promise<Removal[]> {
  const { vmUuid } = lease;
  const { names, complete } = await store.list(vmFolder(vmUuid), { signal });
  const reason = complete ? undefined : 'the store cannot tell all its names';
  const needs = reason ?? (await readNeeds(store, pointsAmong(names), { signal }));
  if (typeof needs === 'string') return points.map((point) => ({ point, outcome: 'kept', reason: needs }));
  const before = new Set(names);
  const removals: Removal[] = [];
  // What needs others is mostly newer: taken first, one pass is enough.
  const open = new Set([...points].sort().reverse());
  for (let last = -1; open.size !== last; ) {
    last = open.size;
    for (const point of open) {
      if (neededBy(needs, point).length > 0) continue; // perhaps later
      signal?.throwIfAborted();
      await lease.assertHeld({ signal });
      const removal = await removeOne(store, { vmUuid, point }, names, before, { signal });
      removals.push(removal);
      if (removal.outcome !== 'kept') needs.delete(point);
      open.delete(point);
    }
  }
  for (const point of open) {
    removals.push({ point, outcome: 'kept', reason: `needed by ${neededBy(needs, point).join(', ')}` });
  }
  return removals;
}

async function removeOne(
  store: Store,
  id: PointId,
  names: readonly string[],
  before: ReadonlySet<string>,
  options: CallOptions,
): Promise<Removal> {
  const { point } = id;
  const manifest = manifestName(id);
  const own = names.filter((name) => pointOfName(name) === point);
  if (own.length === 0) return { point, outcome: 'gone' };
  try {
    if (own.includes(manifest)) await removeManifest(store, id, before, options);
    await removeFiles(store, own, manifest);
    return { point, outcome: 'removed' };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    if (error.code === 'STORE_NOT_FOUND') return { point, outcome: 'gone' }; // another prune was quicker
    if (error.code !== 'POINT_NEEDED') throw error;
    return { point, outcome: 'kept', reason: error.message };
  }
}

/** What each point needs, or why that cannot be known. */
async function readNeeds(
  store: Store,
  ids: readonly PointId[],
  options: CallOptions,
): Promise<Map<string, ReadonlySet<string>> | string> {
  const needs = new Map<string, ReadonlySet<string>>();
  for (const id of ids) {
    try {
      needs.set(id.point, basesOf(await readManifest(store, id, options)));
    } catch (error) {
      if (!(error instanceof BackupError)) throw error;
      if (error.code === 'NOT_FOUND') continue; // removed meanwhile
      if (error.code !== 'POINT_BROKEN' && error.code !== 'REPOSITORY_FORMAT_NEWER') throw error;
      return `${id.point} cannot be read: ${error.message}`;
    }
  }
  return needs;
}

function neededBy(needs: ReadonlyMap<string, ReadonlySet<string>>, point: string): string[] {
  return [...needs].flatMap(([other, bases]) => (other !== point && bases.has(point) ? [other] : []));
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
