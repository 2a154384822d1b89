import { createHash } from 'node:crypto';
import { BackupError, type CallOptions } from '../core/index.ts';
import { type ByteSource, type Disk, overlay, rawDisk } from '../disk/index.ts';
import { openVhd, overlayVhds } from '../vhd/index.ts';
import { openXva } from '../xva/index.ts';
import { manifestName, vmFolder } from './layout.ts';
import type { Manifest, ManifestDisk, ManifestFile, PointId } from './manifest.ts';
import { followBases, readManifest, readWhole } from './points.ts';
import type { Store } from './store.ts';

/** What a differencing VHD names as its parent where that is a raw file (XenServer). */
const RAW_PARENT = '00000000-0000-0000-0000-000000000000';
/** No VM's records are longer: what is, is not read into memory. In bytes. */
const LONGEST_METADATA = 256 * 1024 * 1024;

/** One layer of a disk as it lies in the store, opened. */
export interface Layer {
  readonly disk: Disk;
  readonly entry: ManifestDisk;
  /** Full name in the store. */
  readonly file: string;
  /** The VHD's uuid; all zeros for a raw file: what the layer above names as its parent. */
  readonly uuid: string;
  /** The uuid of the VHD it builds on, for a differencing one. */
  readonly parentUuid: string | undefined;
}

/** A disk at a point, merged. See `Repository.openDisk`. */
export async function openMergedDisk(
  store: Store,
  id: PointId,
  vdiUuid: string,
  options: CallOptions = {},
): Promise<Disk> {
  return openMerged(store, await readManifest(store, id, options), vdiUuid, options);
}

/** The same; `top` need not be in the store yet. */
export async function openMerged(
  store: Store,
  top: Manifest,
  vdiUuid: string,
  options: CallOptions = {},
): Promise<Disk> {
  const { layers, imageRoot } = await openChain(store, top, vdiUuid, options);
  const disks = layers.map(({ disk }) => disk);
  if (imageRoot === undefined) return overlayVhds(disks);
  try {
    const root = await openImageDisk(store, imageRoot, vdiUuid, options);
    return disks.length === 0 ? root : overlay([root, ...disks]);
  } catch (error) {
    await closeLayers(layers);
    throw error;
  }
}

/** The layers of one disk, opened and checked to fit one another. */
export interface OpenedChain {
  /** Root first. */
  readonly layers: readonly Layer[];
  /** The point whose XVA holds what lies below the layers, where the image strategy made it; the archive is there. */
  readonly imageRoot: Manifest | undefined;
}

/** Opens the layers of a disk down to its root. `top` need not be in the store yet. */
export async function openChain(
  store: Store,
  top: Manifest,
  vdiUuid: string,
  options: CallOptions = {},
): Promise<OpenedChain> {
  const manifests = await diskChain(store, top, vdiUuid, options);
  const imageRoot = isInsideImage(manifests[0]!, vdiUuid) ? manifests.shift() : undefined;
  const layers: Layer[] = [];
  try {
    if (imageRoot !== undefined) await (await openImage(store, imageRoot, options)).source.close();
    // From the top: a layer that was merged in place needs none of those below.
    for (const manifest of manifests.toReversed()) {
      const layer = await openManifestLayer(store, manifest, vdiUuid, options);
      layers.unshift(layer);
      if (isMerged(layer)) return { layers: checkLinks(layers), imageRoot: undefined };
    }
    if (imageRoot !== undefined && layers[0] !== undefined) checkImageLink(layers[0], imageRoot);
    return { layers: checkLinks(layers, imageRoot === undefined ? 0 : 1), imageRoot };
  } catch (error) {
    await closeLayers(layers);
    throw error;
  }
}

/** Holds each layer to the one below it; those before `from` are held to something else. */
function checkLinks(layers: Layer[], from = 0): Layer[] {
  for (let i = from; i < layers.length; i++) checkLink(layers[i]!, layers[i - 1]);
  return layers;
}

/** Is it a delta by its manifest, and stands alone by now? See `mergePoint`. */
export function isMerged({ entry, parentUuid }: Layer): boolean {
  return entry.mode === 'delta' && parentUuid === undefined;
}

/** The manifests that hold the layers of a disk, root first. */
function diskChain(store: Store, top: Manifest, vdiUuid: string, options: CallOptions): Promise<Manifest[]> {
  const baseOf = (manifest: Manifest) => {
    if (manifest === top) return findDisk(manifest, vdiUuid).basePoint;
    const entry = manifest.disks.find((disk) => disk.vdiUuid === vdiUuid);
    if (entry !== undefined && entry.mode !== 'excluded') return entry.basePoint;
    const name = manifestName({ vmUuid: manifest.vm.uuid, point: manifest.point });
    throw pointBroken(name, 'disks', `disk ${vdiUuid}, on which a later point builds`, 'none');
  };
  return followBases(store, top, baseOf, options);
}

/** Does the point have the disk inside its XVA only? */
export function isInsideImage({ strategy, type, disks }: Manifest, vdiUuid: string): boolean {
  const entry = disks.find((disk) => disk.vdiUuid === vdiUuid);
  return strategy === 'image' && type === 'full' && entry?.mode === 'full';
}

/** One layer of a disk. See `Repository.openLayer`. */
export async function openPointLayer(
  store: Store,
  id: PointId,
  vdiUuid: string,
  options: CallOptions = {},
): Promise<Disk> {
  return (await openManifestLayer(store, await readManifest(store, id, options), vdiUuid, options)).disk;
}

/** Opens the layer that a manifest holds of a disk, and checks it against what the manifest says of it. */
export async function openManifestLayer(
  store: Store,
  manifest: Manifest,
  vdiUuid: string,
  options: CallOptions = {},
): Promise<Layer> {
  const entry = findDisk(manifest, vdiUuid);
  const record = manifest.files.find(({ name }) => name === entry.file);
  if (record === undefined) throw noLayer(manifest, entry);
  const file = vmFolder(manifest.vm.uuid) + record.name;
  const mayBeMerged = manifest.merging === true && entry.mode === 'delta';
  const source = mayBeMerged
    ? await openThere(store, file, record, options)
    : await openRecorded(store, file, record, options);
  try {
    const layer = await openSource(source, entry, file, options);
    checkLayer(layer, mayBeMerged);
    const isOther = mayBeMerged && !isMerged(layer) && source.size !== record.length;
    if (isOther) throw pointBroken(file, 'length', record.length, source.size);
    return layer;
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openSource(source: ByteSource, entry: ManifestDisk, file: string, options: CallOptions): Promise<Layer> {
  if (entry.format === 'raw') {
    return { disk: rawDisk(source), entry, file, uuid: RAW_PARENT, parentUuid: undefined };
  }
  const disk = await openVhd(source, { ...options, file });
  return { disk, entry, file, uuid: disk.uuid, parentUuid: disk.parent?.uuid };
}

/** Is the layer what its manifest says? */
function checkLayer({ disk, entry, file, uuid, parentUuid }: Layer, mayBeMerged: boolean): void {
  if (entry.format === 'vhd' && entry.vhdUuid !== undefined && entry.vhdUuid !== uuid) {
    throw pointBroken(file, 'VHD uuid', entry.vhdUuid, uuid);
  }
  const isDelta = parentUuid !== undefined;
  if (isDelta !== (entry.mode === 'delta') && !(mayBeMerged && !isDelta)) {
    throw pointBroken(file, 'kind', `a ${entry.mode}`, isDelta ? 'a differencing VHD' : 'a disk that stands alone');
  }
  const sectors = Math.ceil(entry.size / 512) * 512; // a VHD holds whole sectors
  if (disk.size !== entry.size && disk.size !== sectors) throw pointBroken(file, 'disk size', entry.size, disk.size);
}

/** The archive of a full by the image strategy, as long as it was written. */
async function openImage(
  store: Store,
  manifest: Manifest,
  options: CallOptions,
): Promise<{ readonly source: ByteSource; readonly file: string }> {
  const record = fileOfRole(manifest, 'image');
  const file = vmFolder(manifest.vm.uuid) + record.name;
  return { source: await openRecorded(store, file, record, options), file };
}

/**
 * A disk inside the archive of a point, found there by the uuid of its snapshot. Closing it closes the archive.
 *
 * @throws FormatError `XVA_COMPRESSED`; BackupError `POINT_BROKEN` where the archive has not what the manifest says.
 */
async function openImageDisk(store: Store, manifest: Manifest, vdiUuid: string, options: CallOptions): Promise<Disk> {
  const { snapshotVdiUuid, size } = findDisk(manifest, vdiUuid);
  const { source, file } = await openImage(store, manifest, options);
  try {
    const image = await openXva(source, { ...options, file });
    const disk = image.disks.find((inside) => inside.vdiUuid === snapshotVdiUuid);
    if (disk === undefined) throw pointBroken(file, 'ova.xml', `a VDI ${snapshotVdiUuid}`, 'none');
    if (disk.size !== size) throw pointBroken(file, `size of VDI ${snapshotVdiUuid}`, size, disk.size);
    const close = () => image.close();
    return { ...disk, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Does a layer build on a disk inside an archive? It names the VHD that the disk becomes outside. */
export function checkImageLink({ file, parentUuid, disk, entry }: Layer, image: Manifest): void {
  const { vhdUuid, size } = findDisk(image, entry.vdiUuid);
  const inside = `that of the disk in the image of ${image.point}`;
  if (parentUuid !== vhdUuid) throw pointBroken(file, 'parent', `${vhdUuid}, ${inside}`, parentUuid ?? 'none');
  if (disk.size < size) throw pointBroken(file, 'disk size', `at least ${size}, ${inside}`, disk.size);
}

/** Does a layer build on the one below it? Only the uuid is the link; names say where to look. */
export function checkLink(layer: Layer, below: Layer | undefined): void {
  if (below === undefined) {
    if (layer.parentUuid === undefined) return;
    throw pointBroken(layer.file, 'parent', 'none in the root of a chain', layer.parentUuid);
  }
  if (layer.parentUuid !== below.uuid) {
    throw pointBroken(layer.file, 'parent', `${below.uuid}, the uuid of ${below.file}`, layer.parentUuid ?? 'none');
  }
  if (layer.disk.size < below.disk.size) {
    throw pointBroken(layer.file, 'disk size', `at least ${below.disk.size}, that of ${below.file}`, layer.disk.size);
  }
}

/** Opens a file of a point and holds it to the length it was written with. */
export async function openRecorded(
  store: Store,
  name: string,
  record: ManifestFile,
  options: CallOptions = {},
): Promise<ByteSource> {
  const source = await openThere(store, name, record, options);
  if (source.size === record.length) return source;
  await source.close();
  throw pointBroken(name, 'length', record.length, source.size);
}

/** Opens a file of a point, whatever its length. */
export function openThere(
  store: Store,
  name: string,
  { length }: ManifestFile,
  options: CallOptions = {},
): Promise<ByteSource> {
  return store.open(name, options).catch((error: unknown) => {
    if (!(error instanceof BackupError) || error.code !== 'STORE_NOT_FOUND') throw error;
    throw pointBroken(name, 'file', `${length} bytes`, 'nothing', error);
  });
}

/** The file of one role. See `Repository.openFile`. */
export async function openPointFile(
  store: Store,
  id: PointId,
  role: ManifestFile['role'],
  options: CallOptions = {},
): Promise<ByteSource> {
  const record = fileOfRole(await readManifest(store, id, options), role);
  return openRecorded(store, vmFolder(id.vmUuid) + record.name, record, options);
}

/** The records of a point's VM. See `Repository.readMetadata`. */
export async function readPointMetadata(store: Store, id: PointId, options: CallOptions = {}): Promise<unknown> {
  const record = fileOfRole(await readManifest(store, id, options), 'metadata');
  const name = vmFolder(id.vmUuid) + record.name;
  await (await openRecorded(store, name, record, options)).close();
  const bytes = await readWhole(store, name, LONGEST_METADATA, options);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== record.sha256) throw pointBroken(name, 'SHA-256', record.sha256, sha256);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch (error) {
    throw pointBroken(name, 'content', 'JSON', 'something else', error);
  }
}

export async function closeLayers(layers: readonly Layer[]): Promise<void> {
  await Promise.all(layers.map(({ disk }) => disk.close()));
}

function fileOfRole(manifest: Manifest, role: ManifestFile['role']): ManifestFile {
  const record = manifest.files.find((file) => file.role === role);
  if (record !== undefined) return record;
  throw new BackupError('NOT_FOUND', `point ${manifest.point} of VM ${manifest.vm.uuid} has no ${role} file`, {
    facts: { vmUuid: manifest.vm.uuid, point: manifest.point, role },
  });
}

function findDisk(manifest: Manifest, vdiUuid: string): ManifestDisk {
  const entry = manifest.disks.find((disk) => disk.vdiUuid === vdiUuid);
  if (entry !== undefined) return entry;
  throw new BackupError('NOT_FOUND', `point ${manifest.point} of VM ${manifest.vm.uuid} has no disk ${vdiUuid}`, {
    facts: { vmUuid: manifest.vm.uuid, point: manifest.point, vdiUuid },
  });
}

function noLayer({ point, vm }: Manifest, { vdiUuid, mode }: ManifestDisk): BackupError {
  const why = mode === 'excluded' ? 'it was excluded' : 'it lies inside the XVA';
  return new BackupError('NOT_FOUND', `point ${point} of VM ${vm.uuid} has no layer of disk ${vdiUuid}: ${why}`, {
    facts: { vmUuid: vm.uuid, point, vdiUuid, mode },
  });
}

/** A file of a point that is not what it was. */
export function pointBroken(
  file: string,
  field: string,
  expected: unknown,
  actual: unknown,
  cause?: unknown,
): BackupError {
  return new BackupError('POINT_BROKEN', `${file}: ${field}: expected ${String(expected)}, got ${String(actual)}`, {
    cause,
    facts: { file, field, expected, actual },
  });
}
