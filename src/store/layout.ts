import type { ManifestFile, PointId, PointType } from './manifest.ts';
import { isNamePart } from './names.ts';

/** What makes a store a repository. */
export const REPOSITORY_FILE = 'repository.json';
/** Where every VM has its folder. */
export const VMS_FOLDER = 'vms/';

const POINT = /^\d{8}t\d{9}z-(?:full|incr)-[0-9a-f]{6}$/;
const TYPE_AT = '20261122t180512345z-'.length;
const VM_FILE = /^vms\/([^/]+)\//;
const LEASE = /^vms\/[^/]+\/leases\/([0-9]{8})\.json$/;
const MANIFEST = /^vms\/([^/]+)\/points\/([^/.]+)\.json$/;

/** What the name of a point tells. */
export interface PointFacts {
  readonly type: PointType;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

/**
 * The name of a point: `20261122t180512345z-full-9f3a1c`. Lower-case, sorted by time, safe on every file system.
 *
 * @param timeMs milliseconds since 1970, up to the year 9999.
 * @param random six lower-case hexadecimal digits.
 */
export function formatPoint(timeMs: number, type: PointType, random: string): string {
  const time = new Date(timeMs).toISOString().replace(/[-:.]/g, '').toLowerCase();
  const point = `${time}-${type}-${random}`;
  if (parsePoint(point) === undefined) throw new RangeError(`no name for a point: ${point}`);
  return point;
}

/** What a point's name says, or `undefined` where it is no such name. */
export function parsePoint(point: string): PointFacts | undefined {
  if (point !== last.point) last = { point, facts: parse(point) };
  return last.facts;
}

/** Names are parsed by the hundred thousand, the same one several times in a row. */
let last: { readonly point: string; readonly facts: PointFacts | undefined } = { point: '', facts: undefined };

function parse(point: string): PointFacts | undefined {
  if (!POINT.test(point)) return undefined; // without groups: they take most of the time
  const [year, month, day] = [point.slice(0, 4), point.slice(4, 6), point.slice(6, 8)];
  const [hour, minute, second] = [point.slice(9, 11), point.slice(11, 13), point.slice(13, 15)];
  if (!isDate(Number(year), Number(month), Number(day))) return undefined;
  if (hour > '23' || minute > '59' || second > '59') return undefined;
  const createdAt = `${year}-${month}-${day}T${hour}:${minute}:${second}.${point.slice(15, 18)}Z`;
  return { type: point.startsWith('full', TYPE_AT) ? 'full' : 'incr', createdAt };
}

/** Is there such a day? By hand: `Date` is slow, and takes a 30th of February. */
function isDate(year: number, month: number, day: number): boolean {
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = month === 2 ? (isLeapYear ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31;
  return month >= 1 && month <= 12 && day >= 1 && day <= days;
}

/** The folder of a VM, with `/` at its end. Names in a manifest are relative to it. */
export function vmFolder(vmUuid: string): string {
  if (!isNamePart(vmUuid)) throw new RangeError(`not the uuid of a VM: ${JSON.stringify(vmUuid)}`);
  return `${VMS_FOLDER}${vmUuid}/`;
}

/** The full name of a point's manifest. */
export function manifestName({ vmUuid, point }: PointId): string {
  if (parsePoint(point) === undefined) throw new RangeError(`not the name of a point: ${JSON.stringify(point)}`);
  return `${vmFolder(vmUuid)}points/${point}.json`;
}

/** The full name of the record that a point's content was found whole. */
export function verifiedName(id: PointId): string {
  return manifestName(id).replace(/json$/, 'verified.json');
}

/** Which point a full name is the manifest of, if any. */
export function parseManifestName(name: string): PointId | undefined {
  const [, vmUuid, point] = MANIFEST.exec(name) ?? [];
  if (vmUuid === undefined || point === undefined || parsePoint(point) === undefined) return undefined;
  return { vmUuid, point };
}

/** The full name of the record of a VM's run that was cut short. */
export function unfinishedName(vmUuid: string): string {
  return `${vmFolder(vmUuid)}unfinished.json`;
}

/** The folder of a VM's leases, with `/` at its end. */
export function leasesFolder(vmUuid: string): string {
  return `${vmFolder(vmUuid)}leases/`;
}

/** The full name of a VM's lease of this number. */
export function leaseName(vmUuid: string, generation: number): string {
  return `${leasesFolder(vmUuid)}${String(generation).padStart(8, '0')}.json`;
}

/** The number of the lease of this full name, if it is one. */
export function leaseGeneration(name: string): number | undefined {
  const digits = LEASE.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The layer of a disk, relative to the VM's folder. A chain's layers lie side by side: other tools look only there. */
export function layerName(vdiUuid: string, point: string, format: 'vhd' | 'raw'): string {
  if (!isNamePart(vdiUuid)) throw new RangeError(`not the uuid of a disk: ${JSON.stringify(vdiUuid)}`);
  return `disks/${vdiUuid}/${point}.${format}`;
}

/** The digests of a layer's blocks, relative to the VM's folder. */
export function digestsName(vdiUuid: string, point: string): string {
  return layerName(vdiUuid, point, 'vhd').replace(/vhd$/, 'digests');
}

/** The names of a point's other files, relative to the VM's folder. */
export interface PointFileNames {
  /** Records of the VM and what hangs on it (changed-blocks). */
  readonly metadata: string;
  /** The host's own `/export_metadata` (changed-blocks). */
  readonly metadataArchive: string;
  /** The XVA (image). */
  readonly image: string;
  /** The XVA, compressed with zstd (image). */
  readonly imageZstd: string;
}

export function pointFileNames(point: string): PointFileNames {
  return {
    metadata: `points/${point}.metadata.json`,
    metadataArchive: `points/${point}.metadata.xva`,
    image: `images/${point}.xva`,
    imageZstd: `images/${point}.xva.zst`,
  };
}

/** May a file of this role and name (relative to the VM's folder) belong to this point? */
export function isFileOf(point: string, { name, role }: Pick<ManifestFile, 'name' | 'role'>): boolean {
  const names = pointFileNames(point);
  switch (role) {
    case 'metadata':
      return name === names.metadata;
    case 'metadata-archive':
      return name === names.metadataArchive;
    case 'image':
      return name === names.image || name === names.imageZstd;
    case 'disk':
    case 'digests': {
      const [folder, vdiUuid = '', file, ...more] = name.split('/');
      if (folder !== 'disks' || !isNamePart(vdiUuid) || more.length > 0) return false;
      if (role === 'digests') return file === `${point}.digests`;
      return file === `${point}.vhd` || file === `${point}.raw`;
    }
  }
}

/**
 * Which of these full names of files are of points that have no manifest among them: of writers that died, or of removals that
 * were cut short.
 */
export function filesOfNoPoint(names: readonly string[]): { readonly vmUuid: string; readonly name: string }[] {
  const there = new Set(names);
  return names.flatMap((name) => {
    const point = pointOfName(name);
    const vmUuid = VM_FILE.exec(name)?.[1];
    if (point === undefined || vmUuid === undefined || !isNamePart(vmUuid)) return [];
    return there.has(manifestName({ vmUuid, point })) ? [] : [{ vmUuid, name }];
  });
}

/** The point that a full name belongs to, whatever its role: its last part begins with the point's name. */
export function pointOfName(name: string): string | undefined {
  const point = name.slice(name.lastIndexOf('/') + 1).split('.')[0]!;
  return parsePoint(point) === undefined ? undefined : point;
}
