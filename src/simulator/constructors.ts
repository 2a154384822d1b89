import { type ClassName, fieldsOf, type RecordOf } from './data-model.ts';
import type { XapiValue } from './field-spec.ts';
import { struct } from './method.ts';
import { XapiFailure } from './world.ts';

/** Which members the one argument of a `create` call must have, and which it may have; others are ignored. */
interface Constructor {
  readonly required: readonly string[];
  readonly optional: readonly string[];
}

const words = (text: string): readonly string[] => text.trim().split(/\s+/);

const CONSTRUCTORS = {
  VM: {
    required: words(`user_version is_a_template affinity memory_static_max memory_dynamic_max memory_dynamic_min
      memory_static_min VCPUs_params VCPUs_max VCPUs_at_startup actions_after_shutdown actions_after_reboot
      actions_after_crash PV_bootloader PV_kernel PV_ramdisk PV_args PV_bootloader_args PV_legacy_args HVM_boot_policy
      HVM_boot_params platform PCI_bus other_config recommendations`),
    optional: words(`name_label name_description power_state suspend_VDI memory_target actions_after_softreboot
      HVM_shadow_multiplier last_boot_CPU_flags last_booted_record xenstore_data ha_always_run ha_restart_priority tags
      appliance start_delay shutdown_delay order suspend_SR version generation_id hardware_platform_version
      has_vendor_device reference_label domain_type NVRAM`),
  },
  VDI: {
    required: words('SR virtual_size type sharable read_only other_config'),
    optional: words('name_label name_description xenstore_data sm_config tags'),
  },
  VBD: {
    required: words('VM VDI userdevice bootable mode type empty other_config qos_algorithm_type qos_algorithm_params'),
    optional: words('device unpluggable currently_attached'),
  },
  VIF: {
    required: words('device network VM MAC MTU other_config qos_algorithm_type qos_algorithm_params'),
    optional: words('currently_attached locking_mode ipv4_allowed ipv6_allowed'),
  },
  network: {
    required: words('other_config'),
    optional: words('name_label name_description MTU bridge managed tags'),
  },
} satisfies Partial<Record<ClassName, Constructor>>;

/** Reads the argument of `<class>.create`: what is missing or of another type is INTERNAL_ERROR, as on the host. */
export function constructorFields<C extends keyof typeof CONSTRUCTORS>(
  className: C,
  argument: XapiValue | undefined,
): Partial<RecordOf<C>> {
  const given = struct(argument);
  const { required, optional } = CONSTRUCTORS[className];
  const specs = fieldsOf(className);
  const fields: Record<string, XapiValue> = {};
  for (const name of [...required, ...optional]) {
    const value = given[name];
    if (value === undefined || value === null) {
      if (!required.includes(name)) continue;
      throw new XapiFailure('INTERNAL_ERROR', [`Server_helpers.Dispatcher_FieldNotFound("${name}")`]);
    }
    fields[name] = readValue(name, specs[name]?.kind ?? 'text', value);
  }
  return fields as Partial<RecordOf<C>>;
}

function readValue(name: string, kind: string, value: XapiValue): XapiValue {
  const wrong = () => new XapiFailure('INTERNAL_ERROR', [`Rpc.Runtime_error("${kind} expected for ${name}")`]);
  switch (kind) {
    case 'int':
    case 'float': {
      const number = typeof value === 'string' ? Number(value) : value;
      if (typeof number !== 'number' || !Number.isFinite(number)) throw wrong();
      return number;
    }
    case 'bool':
      if (typeof value !== 'boolean') throw wrong();
      return value;
    case 'map':
      if (typeof value !== 'object' || Array.isArray(value)) throw wrong();
      return value;
    case 'texts':
    case 'refs':
      if (!Array.isArray(value)) throw wrong();
      return value;
    default:
      if (typeof value !== 'string') throw wrong();
      return value;
  }
}
