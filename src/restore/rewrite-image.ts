import { randomUUID } from 'node:crypto';
import { isOurKey } from '../snapshot/index.ts';
import { type OvaMetadata, type OvaObject, objectsOf, type XmlRpcStruct, type XmlRpcValue } from '../xva/index.ts';
import { type RewriteOptions, rewriteForRestore } from './rewrite-metadata.ts';

/** What stays of the archive of a full: its disks. */
const DISK_CLASSES: ReadonlySet<string> = new Set(['VBD', 'VDI', 'SR']);

/**
 * What a host is asked to import of a VM's archive: its disks as they are, and of the point's own metadata the VM itself
 * with its virtual TPM, as `rewriteForRestore` leaves them: an increment may have another configuration than its full,
 * whose archive bears the identity of a snapshot. Drives and interfaces are made by API calls.
 */
export function rewriteImage(image: OvaMetadata, pointMetadata: OvaMetadata, options: RewriteOptions): OvaMetadata {
  const machine = withOtherIds(rewriteForRestore(pointMetadata, options), image);
  const [vm] = objectsOf(machine, 'VM');
  const discs = new Set(
    objectsOf(image, 'VBD')
      .filter(({ snapshot }) => snapshot['type'] === 'CD')
      .map(({ id }) => id),
  );
  const disks = image.objects
    .filter((object) => DISK_CLASSES.has(object.class) && !discs.has(object.id))
    .map((object) => withoutMarks(object.class === 'VBD' ? attachedTo(vm!, object) : object));
  return { ...image, objects: [...machine.objects, ...disks] };
}

/**
 * A host that is to keep uuids takes a VBD that has the same one instead of making it, whosever it is: that of the
 * snapshot which the archive is of may still be there. Source: xen-api `ocaml/xapi/import.ml` (VBD `precheck`).
 */
function attachedTo(vm: OvaObject, vbd: OvaObject): OvaObject {
  return withFields(vbd, { VM: vm.id, uuid: randomUUID() });
}

/** New ids for all objects: chunks are named after those of the image's disks, which must stay. */
function withOtherIds(metadata: OvaMetadata, taken: OvaMetadata): OvaMetadata {
  const numbers = taken.objects.map(({ id }) => Number(/^Ref:(\d+)$/.exec(id)?.[1] ?? 0));
  // Hosts find a disk's chunks by the beginning of their names: other ids of more digits begin none of them.
  let next = 10 ** String(Math.max(0, ...numbers)).length;
  const ids = new Map(metadata.objects.map(({ id }) => [id, `Ref:${next++}`]));
  const rename = (value: XmlRpcValue): XmlRpcValue => {
    if (typeof value === 'string') return ids.get(value) ?? value;
    if (Array.isArray(value)) return value.map(rename);
    if (!isStruct(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, rename(member)]));
  };
  const objects = metadata.objects.map((object) => ({
    ...object,
    id: ids.get(object.id)!,
    snapshot: rename(object.snapshot) as XmlRpcStruct,
  }));
  return { ...metadata, objects };
}

function isStruct(value: XmlRpcValue): value is XmlRpcStruct {
  return typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype;
}

function withoutMarks(object: OvaObject): OvaObject {
  const config = object.snapshot['other_config'];
  if (config === undefined || !isStruct(config)) return object;
  const kept = Object.fromEntries(Object.entries(config).filter(([key]) => !isOurKey(key)));
  return withFields(object, { other_config: kept });
}

function withFields(object: OvaObject, fields: XmlRpcStruct): OvaObject {
  return { ...object, snapshot: { ...object.snapshot, ...fields } };
}
