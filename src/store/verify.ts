import { createHash } from 'node:crypto';
import { type ByteSource, sourceChunks } from '../bytes/index.ts';
import { BackupError, type CallOptions, systemClock } from '../core/index.ts';
import { checkVhd } from '../vhd/index.ts';
import { checkingXva } from '../xva/index.ts';
import { findDamagedBlocks } from './damaged-blocks.ts';
import {
  digestsName,
  leaseGeneration,
  manifestName,
  pointOfName,
  VMS_FOLDER,
  verifiedName,
  vmFolder,
} from './layout.ts';
import type { Manifest, ManifestDisk, ManifestFile, PointId } from './manifest.ts';
import {
  checkImageLink,
  checkLink,
  isInsideImage,
  isMerged,
  openManifestLayer,
  openThere,
  pointBroken,
} from './open-disk.ts';
import { basesOf, pointsAmong, readManifest } from './points.ts';
import type { Store } from './store.ts';
import { readVerified, writeVerified } from './verified.ts';
import type { Damage, PointReport, VerifyOptions, VerifyReport } from './verify-report.ts';

/** What was found in one point, before its chain is looked at. */
interface Found {
  readonly id: PointId;
  readonly manifest: Manifest | undefined;
  readonly damage: Damage[];
  /** When its content was found whole, where it need not be read again. */
  verifiedAt?: string | undefined;
}

/** Checks points. See `Repository.verify`. Memory: the manifests of the VMs
 * concerned, and for content 4 MiB, for an archive some 10 MiB more. */
export async function verifyPoints(
  store: Store,
  what: PointId | 'all',
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const { level = 'structure', signal } = options;
  const { names } = await store.list(what === 'all' ? VMS_FOLDER : vmFolder(what.vmUuid), { signal });
  const known = new Map<string, Found>();
  for (const id of pointsAmong(names)) known.set(manifestName(id), await look(store, id, options));
  if (what !== 'all' && !known.has(manifestName(what))) await readManifest(store, what, { signal }); // NOT_FOUND
  const wanted = [...known.values()].filter(({ id }) => what === 'all' || reaches(known, what, id));
  let bytesRead = 0;
  for (const found of wanted) {
    options.onProgress?.({ kind: 'stage', run: 'verify', stage: found.id.point, vmUuid: found.id.vmUuid });
    bytesRead += await verifyOne(store, found, known, options);
  }
  const points = wanted.map((found) => report(known, found));
  return {
    level,
    ok: points.every(({ restorable }) => restorable),
    points,
    orphans: what === 'all' ? orphansAmong(names, known) : [],
    bytesRead,
  };
}

/** Checks what a point's manifest names, as deep as is due, and gives the bytes whose hash was compared. */
async function verifyOne(
  store: Store,
  found: Found,
  known: ReadonlyMap<string, Found>,
  options: VerifyOptions,
): Promise<number> {
  const { level, recheckAfterMs, clock = systemClock, signal } = options;
  const { manifest, damage } = found;
  if (manifest === undefined) return 0;
  if (level !== 'content' || recheckAfterMs === undefined) {
    return verifyPoint(store, manifest, known, damage, options);
  }
  found.verifiedAt = await readVerified(store, manifest, clock.now() - recheckAfterMs, { signal });
  const isDue = found.verifiedAt === undefined;
  const bytesRead = await verifyPoint(store, manifest, known, damage, {
    ...options,
    level: isDue ? 'content' : 'structure',
  });
  const isWhole = damage.length === 0 && manifest.merging !== true;
  if (isDue && isWhole) await writeVerified(store, manifest, clock.now(), { signal });
  return bytesRead;
}

async function look(store: Store, id: PointId, { signal }: VerifyOptions): Promise<Found> {
  const damage: Damage[] = [];
  const manifest = await noteDamage(manifestName(id), damage, signal, () => readManifest(store, id, { signal }));
  return { id, manifest, damage };
}

/** Adds what is wrong with the files of a point to `damage`, and gives the bytes whose hash was compared. */
async function verifyPoint(
  store: Store,
  manifest: Manifest,
  known: ReadonlyMap<string, Found>,
  damage: Damage[],
  options: VerifyOptions,
): Promise<number> {
  const { level = 'structure', signal } = options;
  const folder = vmFolder(manifest.vm.uuid);
  let bytesRead = 0;
  for (const record of manifest.files) {
    const file = folder + record.name;
    await noteDamage(file, damage, signal, async () => {
      const disk = manifest.disks.find((entry) => entry.file === record.name);
      const ofDisk = disk ?? manifest.disks.find(({ vdiUuid }) => digestsName(vdiUuid, manifest.point) === record.name);
      await using source = await openThere(store, file, record, { signal });
      if (ofDisk !== undefined && (await isMergedBy(store, manifest, ofDisk, { signal }))) {
        if (disk !== undefined && level === 'content') await checkBitmaps(source, file, damage, signal);
        return; // its hash is known when the merge is done
      }
      if (source.size !== record.length) throw pointBroken(file, 'length', record.length, source.size);
      if (level === 'content') {
        // An image is checked while it is hashed: it may be as large as all disks.
        const chunks = sourceChunks(source, { reuseMemory: true, signal });
        const checking = record.role === 'image' ? checkingXva(chunks, { signal }) : undefined;
        const sha256 = await hashChunks(checking?.bytes ?? chunks, record, options);
        bytesRead += record.length;
        if (sha256 !== record.sha256) {
          if (disk !== undefined && (await locate(store, manifest, disk, file, damage, { signal }))) return;
          throw pointBroken(file, 'SHA-256', record.sha256, sha256);
        }
        const findings = (await checking?.report)?.findings ?? [];
        for (const { code, message } of findings) damage.push({ file, code, message: `${file}: ${message}` });
      }
      if (disk?.format === 'vhd' && level === 'content') await checkBitmaps(source, file, damage, signal);
      if (disk !== undefined) await checkLayer(store, manifest, disk, known, { signal });
    });
  }
  return bytesRead;
}

/** Says where a layer is damaged, if that can be known. */
async function locate(
  store: Store,
  manifest: Manifest,
  disk: ManifestDisk,
  file: string,
  damage: Damage[],
  { signal }: CallOptions,
): Promise<boolean> {
  const code = 'POINT_BROKEN';
  // What stops the search is no other damage than the hash that does not match, which is told then.
  const runs = await noteDamage(file, [], signal, () => findDamagedBlocks(store, manifest, disk, { signal }));
  if (runs?.length === 0) damage.push({ file, code, message: `${file}: all blocks are whole: damaged between them` });
  for (const { fileOffset, offset, length } of runs ?? []) {
    const message = `${file}: damaged at ${fileOffset}: bytes ${offset} to ${offset + length} of disk ${disk.vdiUuid}`;
    damage.push({ file, code, message, offset: fileOffset, disk: { vdiUuid: disk.vdiUuid, offset, length } });
  }
  return runs !== undefined;
}

/** Was the layer made a full by a merge that is not done yet? */
async function isMergedBy(
  store: Store,
  manifest: Manifest,
  { vdiUuid, mode }: ManifestDisk,
  options: CallOptions,
): Promise<boolean> {
  if (manifest.merging !== true || mode !== 'delta') return false;
  const layer = await openManifestLayer(store, manifest, vdiUuid, options);
  await layer.disk.close();
  return isMerged(layer);
}

/** Is a layer what its manifest says, and does it build on the one below? Faults of that one are told with its point. */
async function checkLayer(
  store: Store,
  manifest: Manifest,
  { basePoint, vdiUuid }: ManifestDisk,
  known: ReadonlyMap<string, Found>,
  options: CallOptions,
): Promise<void> {
  const layer = await openManifestLayer(store, manifest, vdiUuid, options);
  try {
    if (basePoint === undefined) return checkLink(layer, undefined);
    const base = known.get(manifestName({ vmUuid: manifest.vm.uuid, point: basePoint }))?.manifest;
    if (base === undefined) return; // among the broken bases
    const entry = base.disks.find((disk) => disk.vdiUuid === vdiUuid);
    if (entry === undefined || entry.mode === 'excluded') {
      throw pointBroken(layer.file, 'base', `disk ${vdiUuid} in ${basePoint}`, 'none');
    }
    if (isInsideImage(base, vdiUuid)) return checkImageLink(layer, base);
    const below = await noteDamage(layer.file, [], options.signal, () =>
      openManifestLayer(store, base, vdiUuid, options),
    );
    if (below === undefined) return;
    try {
      checkLink(layer, below);
    } finally {
      await below.disk.close();
    }
  } finally {
    await layer.disk.close();
  }
}

async function checkBitmaps(
  source: ByteSource,
  file: string,
  damage: Damage[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const { findings } = await checkVhd(source, { level: 'bitmaps', signal });
  for (const { code, message, severity } of findings) if (severity === 'error') damage.push({ file, code, message });
}

/** Runs a check; what the store or a format says against it becomes damage. Aborts and bugs are thrown. */
async function noteDamage<T>(
  file: string,
  damage: Damage[],
  signal: AbortSignal | undefined,
  check: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await check();
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof BackupError)) throw error;
    const blamed = error.facts['file'];
    damage.push({ file: typeof blamed === 'string' ? blamed : file, code: error.code, message: error.message });
    return undefined;
  }
}

async function hashChunks(
  chunks: AsyncIterable<Uint8Array>,
  { name, length }: ManifestFile,
  { onProgress }: VerifyOptions,
): Promise<string> {
  const hash = createHash('sha256');
  let movedBytes = 0;
  for await (const chunk of chunks) {
    hash.update(chunk);
    movedBytes += chunk.byteLength;
    onProgress?.({ kind: 'bytes-moved', run: 'verify', diskId: name, movedBytes, totalBytes: length });
  }
  return hash.digest('hex');
}

function report(known: ReadonlyMap<string, Found>, { id, damage, verifiedAt }: Found): PointReport {
  const brokenBases = [...basesBelow(known, id)]
    .filter((point) => {
      const base = known.get(manifestName({ ...id, point }));
      return base === undefined || base.damage.length > 0;
    })
    .sort();
  const dependents = [...known.values()]
    .filter((other) => other.id.vmUuid === id.vmUuid && basesBelow(known, other.id).has(id.point))
    .map((other) => other.id.point);
  const { vmUuid, point } = id;
  return {
    vmUuid,
    point,
    restorable: damage.length === 0 && brokenBases.length === 0,
    damage,
    verifiedAt,
    brokenBases,
    dependents,
  };
}

/** All points that `id` builds on, directly or through others, itself not among them. */
function basesBelow(known: ReadonlyMap<string, Found>, { vmUuid, point: own }: PointId): Set<string> {
  const below = new Set<string>();
  const open = [own];
  for (let point = open.pop(); point !== undefined; point = open.pop()) {
    const manifest = known.get(manifestName({ vmUuid, point }))?.manifest;
    for (const base of manifest === undefined ? [] : basesOf(manifest)) {
      if (base === own || below.has(base)) continue;
      below.add(base);
      open.push(base);
    }
  }
  return below;
}

function reaches(known: ReadonlyMap<string, Found>, from: PointId, to: PointId): boolean {
  return to.point === from.point || basesBelow(known, from).has(to.point);
}

function orphansAmong(names: readonly string[], known: ReadonlyMap<string, Found>): string[] {
  const owned = new Set<string>(known.keys());
  const unreadable = new Set<string>();
  for (const { id, manifest } of known.values()) {
    if (manifest === undefined) unreadable.add(vmFolder(id.vmUuid) + id.point);
    owned.add(verifiedName(id));
    for (const { name } of manifest?.files ?? []) owned.add(vmFolder(id.vmUuid) + name);
  }
  const ofUnreadable = (name: string) => {
    const [root, vmUuid] = name.split('/');
    return unreadable.has(`${root}/${vmUuid}/${pointOfName(name)}`);
  };
  const isLease = (name: string) => leaseGeneration(name) !== undefined;
  return names.filter((name) => !owned.has(name) && !ofUnreadable(name) && !isLease(name));
}
