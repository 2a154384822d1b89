import { isOurKey } from '../snapshot/index.ts';
import type { StoredRecord } from '../store/index.ts';

/** A NULL reference as the constructors of the host want it. */
const NULL_REF = 'OpaqueRef:NULL';

/** Fields of a VM that its constructor takes as they are. Source: xapi-project/xen-api `ocaml/idl/datamodel_vm.ml`. */
const VM_FIELDS = [
  'user_version', 'name_description', 'memory_static_max', 'memory_dynamic_max', 'memory_dynamic_min',
  'memory_static_min', 'VCPUs_params', 'VCPUs_max', 'VCPUs_at_startup', 'actions_after_shutdown',
  'actions_after_reboot', 'actions_after_crash', 'PV_bootloader', 'PV_kernel', 'PV_ramdisk', 'PV_args',
  'PV_bootloader_args', 'PV_legacy_args', 'HVM_boot_policy', 'HVM_boot_params', 'platform', 'PCI_bus',
  'recommendations', 'xenstore_data', 'ha_always_run', 'ha_restart_priority', 'tags', 'start_delay',
  'shutdown_delay', 'order', 'hardware_platform_version', 'has_vendor_device', 'reference_label', 'domain_type', 'NVRAM',
] as const; // biome-ignore format: a table reads better dense

/** The argument of `VM.create` for a VM of a backup. */
export function vmToCreate(vm: StoredRecord, name: string): Record<string, unknown> {
  const record = pick(vm, VM_FIELDS);
  // A host refuses a whole number where it wants a float (`HVM_shadow_multiplier`); 1 is the default anyhow.
  const multiplier = vm['HVM_shadow_multiplier'];
  if (typeof multiplier === 'number' && !Number.isInteger(multiplier)) record['HVM_shadow_multiplier'] = multiplier;
  return {
    ...record,
    name_label: name,
    is_a_template: false,
    affinity: NULL_REF,
    other_config: withoutOurKeys(vm['other_config'], ['mac_seed']),
  };
}

/** The argument of `VM.set_bios_strings`: hosts refuse empty values. */
export function biosStringsOf(vm: StoredRecord): Record<string, unknown> {
  return Object.fromEntries(Object.entries(vm['bios_strings'] ?? {}).filter(([, value]) => value !== ''));
}

/** The argument of `VBD.create`. A drive whose disc is not known here comes back empty. */
export function vbdToCreate(vbd: StoredRecord, vmRef: string, vdiRef: string | undefined): Record<string, unknown> {
  return {
    ...pick(vbd, [
      'userdevice',
      'bootable',
      'mode',
      'type',
      'unpluggable',
      'qos_algorithm_type',
      'qos_algorithm_params',
    ]),
    VM: vmRef,
    VDI: vdiRef ?? NULL_REF,
    empty: vdiRef === undefined,
    other_config: withoutOurKeys(vbd['other_config']),
  };
}

/** The argument of `VIF.create`; an empty MAC asks the host for one derived from the VM's seed. */
export function vifToCreate(
  vif: StoredRecord,
  vmRef: string,
  networkRef: string,
  keepMac: boolean,
): Record<string, unknown> {
  return {
    ...pick(vif, [
      'device',
      'MTU',
      'qos_algorithm_type',
      'qos_algorithm_params',
      'locking_mode',
      'ipv4_allowed',
      'ipv6_allowed',
    ]),
    VM: vmRef,
    network: networkRef,
    MAC: keepMac ? vif['MAC'] : '',
    other_config: withoutOurKeys(vif['other_config']),
  };
}

/**
 * The argument of `VDI.create`. The source's `sm_config` is its storage's own and is not copied. The disk is made
 * writable, whatever the source was: an import needs it so.
 */
export function vdiToCreate(
  vdi: { readonly name: string; readonly size: number; readonly record?: StoredRecord | undefined },
  srRef: string,
): Record<string, unknown> {
  const { record } = vdi;
  return {
    name_label: vdi.name,
    name_description: record?.['name_description'] ?? '',
    SR: srRef,
    virtual_size: vdi.size,
    type: record?.['type'] === 'system' ? 'system' : 'user',
    sharable: false,
    read_only: false,
    other_config: withoutOurKeys(record?.['other_config']),
    xenstore_data: {},
    tags: record?.['tags'] ?? [],
  };
}

function pick(record: StoredRecord, fields: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    fields
      .filter((field) => record[field] !== undefined && record[field] !== null)
      .map((field) => [field, record[field]]),
  );
}

function withoutOurKeys(otherConfig: unknown, more: readonly string[] = []): Record<string, unknown> {
  return Object.fromEntries(Object.entries(otherConfig ?? {}).filter(([key]) => !isOurKey(key) && !more.includes(key)));
}
