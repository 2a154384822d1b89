import { addImported, type ObjectImporter } from './archive-import.ts';
import { importNetwork, importVbd, importVif, importVtpm } from './archive-import-devices.ts';
import { importByUuid } from './archive-import-storage.ts';
import { importVm } from './archive-import-vm.ts';
import type { RecordOf } from './data-model.ts';

/** A record that is copied as it is, under a uuid of its own. */
const copied =
  (name: 'VM_metrics' | 'VM_guest_metrics'): ObjectImporter =>
  (state, { record }) => {
    const { uuid, ...fields } = record as RecordOf<typeof name>;
    return addImported(state, name, fields);
  };

/**
 * What is imported, and in which order; other classes are passed over.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `handlers`
 */
export const archiveImporters: ReadonlyMap<string, ObjectImporter> = new Map<string, ObjectImporter>([
  ['host', importByUuid('host')],
  ['SR', importByUuid('SR')],
  ['VDI', (state, object) => state.options.findDisk(object, state)],
  ['VM_guest_metrics', copied('VM_guest_metrics')],
  ['VM_metrics', copied('VM_metrics')],
  ['VM', importVm],
  ['network', importNetwork],
  ['VBD', importVbd],
  ['VIF', importVif],
  ['VTPM', importVtpm],
]);
