import { readBytes } from '../bytes/index.ts';
import { BackupError, type CallOptions } from '../core/index.ts';
import { manifestName, parseManifestName, parsePoint, VMS_FOLDER, vmFolder } from './layout.ts';
import type { Manifest, PointId, Strategy } from './manifest.ts';
import { decodeManifest } from './manifest-codec.ts';
import type { LatestOptions, ListOptions, PointSummary } from './repository.ts';
import type { Store } from './store.ts';

/** No manifest is longer: what is, is not read into memory. In bytes. */
export const LONGEST_MANIFEST = 64 * 1024 * 1024;

/** The points in a store, from names alone, by time, then by VM. */
export async function listPoints(store: Store, { vm, signal }: ListOptions = {}): Promise<PointSummary[]> {
  const prefix = vm === undefined ? VMS_FOLDER : `${vmFolder(vm)}points/`;
  const { names } = await store.list(prefix, { signal });
  return pointsAmong(names);
}

/** The points whose manifests are among `names`, by time, then by VM. */
export function pointsAmong(names: readonly string[]): PointSummary[] {
  const points: PointSummary[] = [];
  for (const name of names) {
    const id = parseManifestName(name);
    if (id !== undefined) points.push({ ...id, ...parsePoint(id.point)! });
  }
  return points.sort((a, b) => compareText(a.point, b.point) || compareText(a.vmUuid, b.vmUuid));
}

/** Reads and checks a manifest. `NOT_FOUND`, `POINT_BROKEN` or `REPOSITORY_FORMAT_NEWER` as in `Repository.get`. */
export async function readManifest(store: Store, id: PointId, options: CallOptions = {}): Promise<Manifest> {
  const name = manifestName(id);
  return decodeManifest(await readWhole(store, name, LONGEST_MANIFEST, options).catch(asNotFound(id)), id);
}

/** Reads an object of at most `longest` bytes; a longer one is `POINT_BROKEN`. */
export async function readWhole(
  store: Store,
  name: string,
  longest: number,
  options: CallOptions = {},
): Promise<Uint8Array> {
  const small = await store.readSmall?.(name, longest, options);
  if (small !== undefined) return small;
  await using source = await store.open(name, options);
  if (source.size > longest) {
    throw new BackupError('POINT_BROKEN', `${name}: expected at most ${longest} bytes, got ${source.size}`, {
      facts: { file: name, expected: longest, actual: source.size },
    });
  }
  return await readBytes(source, 0, source.size, options);
}

/** The newest point of a VM that `strategy` made. */
export async function latestPoint(
  store: Store,
  vmUuid: string,
  strategy: Strategy,
  { onBroken, signal }: LatestOptions = {},
): Promise<Manifest | undefined> {
  for (const { point } of (await listPoints(store, { vm: vmUuid, signal })).reverse()) {
    try {
      const manifest = await readManifest(store, { vmUuid, point }, { signal });
      if (manifest.strategy === strategy) return manifest;
    } catch (error) {
      if (onBroken === undefined || !(error instanceof BackupError) || error.code !== 'POINT_BROKEN') throw error;
      onBroken(error, { vmUuid, point });
    }
  }
  return undefined;
}

/** A point with all below it, root first, following `baseOf`. `top` need not be in the store yet. */
export async function followBases(
  store: Store,
  top: Manifest,
  baseOf: (manifest: Manifest) => string | undefined,
  options: CallOptions = {},
): Promise<Manifest[]> {
  const vmUuid = top.vm.uuid;
  const chain = [top];
  const seen = new Set([top.point]);
  for (let base = baseOf(top); base !== undefined; base = baseOf(chain.at(-1)!)) {
    const above = manifestName({ vmUuid, point: chain.at(-1)!.point });
    if (seen.has(base)) throw brokenBase(above, base, 'is in its own chain');
    seen.add(base);
    chain.push(await readManifest(store, { vmUuid, point: base }, options).catch(asMissing(above, base)));
  }
  return chain.reverse();
}

/** The points that a manifest names as needed: its own base and those of its disks. */
export function basesOf({ base, disks }: Manifest): Set<string> {
  const bases = new Set(disks.flatMap(({ basePoint }) => basePoint ?? []));
  if (base !== undefined) bases.add(base);
  return bases;
}

function asNotFound(id: PointId): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof BackupError) || error.code !== 'STORE_NOT_FOUND') throw error;
    throw new BackupError('NOT_FOUND', `there is no point ${id.point} of VM ${id.vmUuid}`, {
      cause: error,
      facts: { ...id },
    });
  };
}

function asMissing(above: string, base: string): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof BackupError) || error.code !== 'NOT_FOUND') throw error;
    throw brokenBase(above, base, 'is missing', error);
  };
}

function brokenBase(file: string, base: string, what: string, cause?: unknown): BackupError {
  return new BackupError('POINT_BROKEN', `${file}: its base ${base} ${what}`, {
    cause,
    facts: { file, field: 'base', base },
  });
}

/** As `sort` wants it, by code units: quicker than by language, and the same everywhere. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
