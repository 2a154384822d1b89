import { BackupError, type CallOptions, type Clock, type ProgressOptions, systemClock } from '../core/index.ts';
import { acquireLease } from './acquire-lease.ts';
import { filesOfNoPoint, manifestName, VMS_FOLDER, vmFolder } from './layout.ts';
import type { AcquireLeaseOptions, Lease, WaitOptions } from './lease.ts';
import type { Manifest, PointId } from './manifest.ts';
import { decodeManifest } from './manifest-codec.ts';
import { type MergeOptions, mergePoint } from './merge-point.ts';
import { basesOf, compareText, LONGEST_MANIFEST, pointsAmong, readManifest } from './points.ts';
import { removePoints } from './remove-point.ts';
import { decideRetention, type RetentionPoint, type RetentionPolicy, type RetentionVerdict } from './retention.ts';
import type { Store } from './store.ts';

/** How many manifests are read at once. */
const READS = 16;
/** From so many on it pays to ask the store for all at once. */
const MANY = 500;

export interface PlanPruneOptions extends CallOptions {
  /** The uuid of one VM. @defaultValue all VMs */
  readonly vm?: string | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/** A point that is there and cannot be read: none of its VM's is expired while nobody knows what it needs. */
export interface UnreadablePoint extends PointId {
  /** Why it cannot be read. */
  readonly reason: string;
}

/** Plain data: what a prune would remove, and why every other point stays. */
export interface PrunePlan {
  /** Of this document. */
  readonly format: 1;
  /** The repository that the plan is for; no other runs it. */
  readonly repositoryId: string;
  /** ISO 8601, UTC. */
  readonly plannedAt: string;
  /** As it was given. */
  readonly policy: RetentionPolicy;
  /** Every point that can be read, by time. */
  readonly points: readonly RetentionVerdict[];
  /** None of their VMs' points expire. */
  readonly unreadable: readonly UnreadablePoint[];
  /** Could the store promise that it lists all? If not, nothing expires. */
  readonly complete: boolean;
  /** Full names of files of no point, half-written or half-removed: they go, unless somebody is writing them now. */
  readonly leftovers: readonly string[];
  /** Of the points that expire, in bytes. */
  readonly expiredBytes: number;
}

export interface PruneOptions extends WaitOptions, ProgressOptions {
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/** What a prune did. */
export interface PruneReport {
  /** Increments that were made fulls. */
  readonly merged: readonly PointId[];
  /** Increments that could not be, since something below them is broken or the VM has another writer: they stay. */
  readonly unmerged: readonly (PointId & {
    /** What is broken, or who writes. */
    readonly reason: string;
  })[];
  /** They expired, and are gone. */
  readonly removed: readonly PointId[];
  /** Files of no point that are gone, by their full names. */
  readonly cleared: readonly string[];
  /** Points of the plan that were gone already. */
  readonly gone: readonly PointId[];
  /** Points that came to be needed since the plan was made, or whose VM has another writer: they stay. */
  readonly kept: readonly (PointId & {
    /** What needs it, or who writes. */
    readonly reason: string;
  })[];
}

/** See `Repository.planPrune`. */
export async function planPrune(
  store: Store,
  repositoryId: string,
  policy: RetentionPolicy,
  { vm, clock = systemClock, signal }: PlanPruneOptions = {},
): Promise<PrunePlan> {
  const now = clock.now();
  decideRetention([], policy, now); // a policy that is none is told before anything is read
  const { names, complete } = await store.list(vm === undefined ? VMS_FOLDER : vmFolder(vm), { signal });
  const { points, unreadable } = await readAll(store, pointsAmong(names), { signal });
  const unsure = new Map(unreadable.map(({ vmUuid, point }) => [vmUuid, `${point} of this VM cannot be read`]));
  const verdicts = decideRetention(points, policy, now).map((verdict): RetentionVerdict => {
    const detail = complete ? unsure.get(verdict.vmUuid) : 'the store cannot promise that it lists every point';
    if (detail === undefined) return verdict;
    const { merge: _, ...unmerged } = verdict;
    return verdict.action === 'keep'
      ? unmerged
      : { ...unmerged, action: 'keep', reasons: [{ rule: 'unsure', detail }] };
  });
  return {
    format: 1,
    repositoryId,
    plannedAt: new Date(now).toISOString(),
    policy,
    points: verdicts,
    unreadable,
    complete,
    leftovers: complete ? filesOfNoPoint(names).map(({ name }) => name) : [],
    expiredBytes: verdicts.reduce((sum, { action, bytes }) => sum + (action === 'expire' ? bytes : 0), 0),
  };
}

/** See `Repository.prune`. */
export async function prune(
  store: Store,
  repositoryId: string,
  plan: PrunePlan,
  { onProgress, waitMs, signal, clock = systemClock }: PruneOptions = {},
): Promise<PruneReport> {
  if (plan.repositoryId !== repositoryId) {
    throw new BackupError('PLAN_STALE', `the plan is for repository ${plan.repositoryId}, this is ${repositoryId}`);
  }
  const report = {
    merged: [] as PointId[],
    unmerged: [] as (PointId & { reason: string })[],
    removed: [] as PointId[],
    cleared: [] as string[],
    gone: [] as PointId[],
    kept: [] as (PointId & { reason: string })[],
  };
  for (const [vmUuid, { merge, expire, leftovers }] of workOf(plan)) {
    signal?.throwIfAborted();
    const lease = await tryLease(store, vmUuid, clock, { purpose: 'prune', waitMs, onProgress, signal });
    if (lease instanceof BackupError) {
      const reason = lease.message;
      report.unmerged.push(...merge.map((point) => ({ vmUuid, point, reason })));
      report.kept.push(...expire.map((point) => ({ vmUuid, point, reason })));
      continue;
    }
    await using _ = lease;
    for (const point of merge) {
      signal?.throwIfAborted();
      onProgress?.({ kind: 'stage', run: 'prune', stage: 'merge', vmUuid });
      const id = { vmUuid, point };
      const { outcome, reason } = await mergeOne(store, id, { lease, onProgress, signal, clock });
      if (outcome === 'unmerged') report.unmerged.push({ ...id, reason });
      else report[outcome].push(id);
    }
    onProgress?.({ kind: 'stage', run: 'prune', stage: 'remove', vmUuid });
    report.cleared.push(...(await clear(store, lease, leftovers, { signal })));
    if (expire.length === 0) continue;
    for (const removal of await removePoints(store, lease, expire, { signal })) {
      const id = { vmUuid, point: removal.point };
      if (removal.outcome === 'kept') report.kept.push({ ...id, reason: removal.reason });
      else report[removal.outcome].push(id);
    }
  }
  return report;
}

/** What there is to do for one VM. */
interface Work {
  readonly merge: string[];
  readonly expire: string[];
  readonly leftovers: string[];
}

/** What a plan does, by VM. */
function workOf({ points, leftovers }: PrunePlan): Map<string, Work> {
  const work = new Map<string, Work>();
  const of = (vmUuid: string): Work => {
    const ofVm = work.get(vmUuid) ?? { merge: [], expire: [], leftovers: [] };
    work.set(vmUuid, ofVm);
    return ofVm;
  };
  for (const { vmUuid, point, merge, action } of points) {
    if (merge === true) of(vmUuid).merge.push(point);
    else if (action === 'expire') of(vmUuid).expire.push(point);
  }
  for (const { vmUuid, name } of filesOfNoPoint(leftovers)) of(vmUuid).leftovers.push(name);
  return work;
}

/** Removes files that are still of no point; with the lease nobody is writing them. Gives those that are gone. */
async function clear(store: Store, lease: Lease, planned: readonly string[], options: CallOptions): Promise<string[]> {
  if (planned.length === 0) return [];
  const { names } = await store.list(vmFolder(lease.vmUuid), options);
  const wanted = new Set(planned);
  const cleared: string[] = [];
  for (const { name } of filesOfNoPoint(names)) {
    if (!wanted.has(name)) continue;
    await lease.assertHeld(options);
    await store.remove(name, options);
    cleared.push(name);
  }
  return cleared;
}

/** The lease of a VM, or the error that says who has it. */
async function tryLease(
  store: Store,
  vmUuid: string,
  clock: Clock,
  options: AcquireLeaseOptions,
): Promise<Lease | BackupError> {
  try {
    return await acquireLease(store, vmUuid, clock, options);
  } catch (error) {
    if (error instanceof BackupError && error.code === 'LEASE_HELD') return error;
    throw error;
  }
}

/** What became of a point that was to be merged. Where it stays as it is, so does what it needs: removal looks again. */
async function mergeOne(
  store: Store,
  id: PointId,
  options: MergeOptions,
): Promise<{ outcome: 'merged' | 'gone'; reason?: undefined } | { outcome: 'unmerged'; reason: string }> {
  try {
    await mergePoint(store, id, options);
    return { outcome: 'merged' };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    if (error.code === 'NOT_FOUND') return { outcome: 'gone' };
    if (error.code !== 'POINT_BROKEN') throw error;
    return { outcome: 'unmerged', reason: error.message };
  }
}

type Reading = RetentionPoint | UnreadablePoint | undefined;

async function readAll(
  store: Store,
  ids: readonly PointId[],
  options: CallOptions,
): Promise<{ points: RetentionPoint[]; unreadable: UnreadablePoint[] }> {
  const found: Reading[] = new Array(ids.length);
  // One folder after the other: a store has less to look up.
  const order = [...ids.keys()].sort((a, b) => compareText(ids[a]!.vmUuid, ids[b]!.vmUuid));
  const left = ids.length < MANY ? order : await readMany(store, ids, order, found, options);
  let next = 0;
  const reader = async () => {
    for (let at = left[next++]; at !== undefined; at = left[next++]) {
      options.signal?.throwIfAborted();
      found[at] = await readOne(store, ids[at]!, options);
    }
  };
  await Promise.all(Array.from({ length: Math.min(READS, left.length) }, reader));
  const there = found.filter((one) => one !== undefined);
  return {
    points: there.filter((one): one is RetentionPoint => !('reason' in one)),
    unreadable: there.filter((one): one is UnreadablePoint => 'reason' in one),
  };
}

/** Reads what the store can read quickly. Gives those of `order` that are left. */
async function readMany(
  store: Store,
  ids: readonly PointId[],
  order: readonly number[],
  found: Reading[],
  options: CallOptions,
): Promise<readonly number[]> {
  if (store.readMany === undefined) return order;
  const left: number[] = [];
  const names = order.map((at) => manifestName(ids[at]!));
  let index = 0;
  for await (const bytes of store.readMany(names, LONGEST_MANIFEST, options)) {
    const at = order[index++];
    if (at === undefined) break;
    const id = ids[at]!;
    if (bytes === undefined) left.push(at);
    else found[at] = readingOf(id, bytes);
  }
  return [...left, ...order.slice(index)]; // a store that told of too few has not told that the others are gone
}

function readingOf(id: PointId, bytes: Uint8Array): Reading {
  try {
    return describe(id, decodeManifest(bytes, id));
  } catch (error) {
    return unreadable(id, error);
  }
}

async function readOne(store: Store, id: PointId, options: CallOptions): Promise<Reading> {
  try {
    return describe(id, await readManifest(store, id, options));
  } catch (error) {
    return unreadable(id, error);
  }
}

/** Why a point cannot be read; `undefined` where it was removed meanwhile. */
function unreadable(id: PointId, error: unknown): UnreadablePoint | undefined {
  if (!(error instanceof BackupError)) throw error;
  if (error.code === 'NOT_FOUND') return undefined;
  if (error.code !== 'POINT_BROKEN' && error.code !== 'REPOSITORY_FORMAT_NEWER') throw error;
  const { vmUuid, point } = id;
  return { vmUuid, point, reason: `${manifestName(id)}: ${error.message}` };
}

function describe({ vmUuid, point }: PointId, manifest: Manifest): RetentionPoint {
  const { strategy, type, createdAt, snapshot, files } = manifest;
  const bases = [...basesOf(manifest)].sort();
  const bytes = files.reduce((sum, { length }) => sum + length, 0);
  return { vmUuid, point, strategy, type, createdAt, bases, keptSnapshot: snapshot.kept, bytes };
}
