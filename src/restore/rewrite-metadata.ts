import { isOurKey } from '../snapshot/index.ts';
import { asStruct, type OvaMetadata, type OvaObject, objectsOf, type XmlRpcStruct } from '../xva/index.ts';

export interface RewriteOptions {
  readonly name: string;
  /** Leave the seed out from which a host derives MACs: for a host that refuses it because another VM has it. */
  readonly dropMacSeed?: boolean | undefined;
  /** Leave the virtual TPM out. */
  readonly omitVtpm?: boolean | undefined;
}

/**
 * What a host is asked to import: the VM itself with its virtual TPM, halted, under its new name. Disks, drives and
 * interfaces are left out, and made by API calls instead, onto storage and networks that were chosen; an import would
 * look them up by location and name, and make networks that it does not find.
 */
export function rewriteForRestore(metadata: OvaMetadata, options: RewriteOptions): OvaMetadata {
  const [vm] = objectsOf(metadata, 'VM');
  if (vm === undefined) throw new RangeError('the archive holds no VM');
  const kept = metadata.objects.filter(
    (object) =>
      !LEFT_OUT.has(object.class) &&
      (object.class !== 'VM' || object === vm) &&
      !(object.class === 'VTPM' && options.omitVtpm === true),
  );
  return { ...metadata, objects: kept.map((object) => (object === vm ? rewriteVm(vm, options) : object)) };
}

const LEFT_OUT: ReadonlySet<string> = new Set(['VBD', 'VDI', 'VIF', 'SR', 'network', 'PVS_proxy', 'PVS_site']);
const NULL_REF = 'OpaqueRef:NULL';

/** The VM itself, halted, of nobody's run, its name new. */
export function rewriteVm(vm: OvaObject, { name, dropMacSeed, omitVtpm }: RewriteOptions): OvaObject {
  const otherConfig = Object.fromEntries(
    Object.entries(asStruct(vm.snapshot['other_config'] ?? {}, 'VM other_config')).filter(
      ([key]) => !isOurKey(key) && !(key === 'mac_seed' && dropMacSeed === true),
    ),
  );
  const snapshot: XmlRpcStruct = {
    ...vm.snapshot,
    name_label: name,
    other_config: otherConfig,
    is_a_template: false,
    is_a_snapshot: false,
    // a suspended VM comes back halted: its memory was not backed up
    power_state: 'Halted',
    suspend_VDI: NULL_REF,
    resident_on: NULL_REF,
    affinity: NULL_REF,
    appliance: NULL_REF,
    VBDs: [],
    VIFs: [],
    ...(omitVtpm === true ? { VTPMs: [] } : {}),
  };
  return { ...vm, snapshot };
}
