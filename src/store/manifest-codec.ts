import { BackupError } from '../core/index.ts';
import {
  arrayOf,
  boolean,
  type Check,
  FieldError,
  integer,
  literal,
  matching,
  object,
  oneOf,
  optional,
  sha256,
  text,
  utcTime,
} from './fields.ts';
import { digestsName, isFileOf, manifestName, parsePoint } from './layout.ts';
import {
  type Decision,
  MANIFEST_FORMAT,
  type Manifest,
  type ManifestDisk,
  type ManifestFile,
  type ManifestImage,
  type PointId,
  type Warning,
} from './manifest.ts';
import { isNamePart } from './names.ts';
import { checkSeal, encodeSealed, parseJson } from './sealed-json.ts';

const vdiUuid = matching('the uuid of a disk', isNamePart);
const point = matching('the name of a point', (value) => parsePoint(value) !== undefined);
const consistency = oneOf('quiesced', 'crash-consistent');

const format = object<Manifest['format']>({ major: literal(MANIFEST_FORMAT.major), minor: integer });

const file = object<ManifestFile>({
  name: text,
  role: oneOf('disk', 'digests', 'metadata', 'metadata-archive', 'image'),
  length: integer,
  sha256,
});

const disk = object<ManifestDisk>({
  vdiUuid,
  name: text,
  device: text,
  size: integer,
  srUuid: text,
  srName: text,
  srType: text,
  mode: oneOf('full', 'delta', 'excluded'),
  reason: text,
  transport: oneOf('raw', 'vhd', 'nbd', 'xva', 'none'),
  file: optional(text),
  format: optional(oneOf('vhd', 'raw')),
  vhdUuid: optional(text),
  vhdTimestamp: optional(integer),
  basePoint: optional(point),
  snapshotVdiUuid: optional(text),
  digest: optional(sha256),
  bytesMoved: integer,
  changedBytes: optional(integer),
  trackingEnabled: optional(boolean),
});

const manifest: Check<Manifest> = object<Manifest>({
  format,
  writer: text,
  point,
  strategy: oneOf('image', 'changed-blocks'),
  type: oneOf('full', 'incr'),
  createdAt: utcTime,
  base: optional(point),
  merging: optional(literal(true)),
  merged: optional(object<NonNullable<Manifest['merged']>>({ at: utcTime, base: point })),
  vm: object<Manifest['vm']>({ uuid: text, name: text, powerState: text }),
  host: object<Manifest['host']>({
    poolUuid: text,
    poolName: text,
    productBrand: text,
    productVersion: text,
    apiVersion: text,
  }),
  consistency: object<Manifest['consistency']>({
    requested: consistency,
    achieved: consistency,
    reason: optional(text),
  }),
  snapshot: object<Manifest['snapshot']>({ uuid: text, kept: boolean }),
  disks: arrayOf(disk),
  image: optional(object<ManifestImage>({ compression: oneOf('none', 'gzip', 'zstd'), plainLength: integer })),
  files: arrayOf(file),
  decisions: arrayOf(object<Decision>({ subject: text, topic: text, choice: text, reason: text })),
  warnings: arrayOf(object<Warning>({ code: text, message: text })),
  containsSecrets: boolean,
});

export function encodeManifest(value: Manifest): Uint8Array {
  return encodeSealed(value);
}

/**
 * A manifest from its bytes: that they are as they were written, every field, and that it is the one of `id` and names only
 * this point's files.
 * Fields that a newer minor format added are left out.
 *
 * @throws BackupError `POINT_BROKEN` with `facts.file` and `facts.field`; `REPOSITORY_FORMAT_NEWER` for a newer major.
 */
export function decodeManifest(bytes: Uint8Array, id: PointId): Manifest {
  const name = manifestName(id);
  try {
    const value = parseJson(bytes);
    refuseNewer(value, name);
    checkSeal(bytes);
    const decoded = manifest(value, '');
    checkIdentity(decoded, id);
    checkFiles(decoded);
    checkDisks(decoded);
    return decoded;
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const { field, expected, actual } = error;
    throw new BackupError('POINT_BROKEN', `${name}: ${error.message}`, {
      facts: { ...id, file: name, field, expected, actual },
    });
  }
}

/** Throws `REPOSITORY_FORMAT_NEWER` where `value`, read from `name`, says that it is of a newer major format. */
export function refuseNewer(value: unknown, name: string): void {
  const major = (value as { format?: { major?: unknown } | null } | null)?.format?.major;
  if (typeof major !== 'number' || !(major > MANIFEST_FORMAT.major)) return;
  throw new BackupError(
    'REPOSITORY_FORMAT_NEWER',
    `${name}: written in format ${major}, this library reads up to ${MANIFEST_FORMAT.major}`,
    { facts: { file: name, major } },
  );
}

function checkIdentity(found: Manifest, id: PointId): void {
  expectField('point', found.point === id.point, id.point, found.point);
  expectField('vm.uuid', found.vm.uuid === id.vmUuid, id.vmUuid, found.vm.uuid);
  const named = parsePoint(id.point)?.type;
  if (found.merged !== undefined) expectField('merged', named === 'incr', 'none of what was a full', found.merged.at);
  const type = found.merged === undefined ? named : 'full';
  expectField('type', found.type === type, type, found.type);
  if (found.merging === true) expectField('merging', type === 'incr', 'none of a full', true);
  if (found.type === 'full') expectField('base', found.base === undefined, 'none for a full', found.base);
  else expectField('base', isOther(found.base, found.point), 'another point', found.base);
}

function checkFiles({ point: own, files }: Manifest): void {
  const seen = new Set<string>();
  for (const [index, { name, role }] of files.entries()) {
    const field = `files[${index}].name`;
    expectField(field, isFileOf(own, { name, role }), `a ${role} file of this point`, name);
    expectField(field, !seen.has(name), 'each file once', name);
    seen.add(name);
  }
}

function checkDisks({ point: own, strategy, type, disks, image, files }: Manifest): void {
  const isImage = strategy === 'image' && type === 'full';
  const namesOf = (wanted: ManifestFile['role']) =>
    new Set(files.filter(({ role }) => role === wanted).map(({ name }) => name));
  const layers = namesOf('disk');
  const digests = namesOf('digests');
  const seen = new Set<string>();
  for (const [index, entry] of disks.entries()) {
    const at = `disks[${index}]`;
    expectField(`${at}.vdiUuid`, !seen.has(entry.vdiUuid), 'each disk once', entry.vdiUuid);
    seen.add(entry.vdiUuid);
    const insideImage = isImage && entry.mode === 'full';
    expectField(`${at}.transport`, insideImage === (entry.transport === 'xva'), 'xva inside an image', entry.transport);
    if (insideImage) {
      expectField(`${at}.vhdUuid`, entry.vhdUuid !== undefined, 'that of the VHD it becomes', entry.vhdUuid);
      expectField(`${at}.snapshotVdiUuid`, entry.snapshotVdiUuid !== undefined, 'its name in the image', undefined);
    }
    if (entry.mode === 'excluded' || insideImage) {
      expectField(`${at}.file`, entry.file === undefined, 'none for a disk without a layer of its own', entry.file);
    } else {
      const expected = `disks/${entry.vdiUuid}/${own}.${entry.format ?? 'vhd'}`;
      expectField(`${at}.format`, entry.format !== undefined, 'vhd or raw', entry.format);
      expectField(`${at}.file`, entry.file === expected, expected, entry.file);
      expectField(`${at}.file`, layers.delete(expected), 'one of the files', entry.file);
      digests.delete(digestsName(entry.vdiUuid, own));
    }
    if (entry.mode === 'delta') {
      expectField(`${at}.mode`, type === 'incr', 'no delta in a full', entry.mode);
      expectField(`${at}.format`, entry.format === 'vhd', 'vhd for a delta', entry.format);
      expectField(`${at}.basePoint`, isOther(entry.basePoint, own), 'another point', entry.basePoint);
    } else {
      expectField(`${at}.basePoint`, entry.basePoint === undefined, `none for ${entry.mode}`, entry.basePoint);
    }
  }
  expectField('files', layers.size === 0, 'only layers that a disk names', [...layers].join(', '));
  expectField('files', digests.size === 0, 'only digests of layers', [...digests].join(', '));
  const images = files.filter(({ role }) => role === 'image').length;
  const expectedImages = isImage ? 1 : 0;
  expectField('files', images === expectedImages, `${expectedImages} image files`, images);
  expectField('image', (image !== undefined) === isImage, isImage ? 'how it is compressed' : 'none', image);
}

function isOther(base: string | undefined, own: string): boolean {
  return base !== undefined && base !== own;
}

function expectField(field: string, holds: boolean, expected: unknown, actual: unknown): void {
  if (!holds) throw new FieldError(field, expected, actual);
}
