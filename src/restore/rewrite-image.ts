import { randomUUID } from 'node:crypto';
import { type OvaMetadata, type OvaObject, objectsOf } from '../xva/index.ts';
import { withFields, withOtherIds, withoutMarks } from './ova-objects.ts';
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
