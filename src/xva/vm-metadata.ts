import { FormatError } from '../core/index.ts';
import { type OvaMetadata, type OvaObject, objectsOf } from './ova-xml.ts';
import { isTrue, mapOf, numberOf, textOf } from './record-fields.ts';

/** A drive of a VM: disk, CD or floppy. */
export interface XvaDrive {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Of the VBD. */
  readonly uuid: string;
  /** Its position, `userdevice`. */
  readonly device: string;
  /** What kind of drive. */
  readonly type: 'Disk' | 'CD' | 'Floppy';
  /** May the guest write? */
  readonly mode: 'RO' | 'RW';
  /** Does the VM boot from it? */
  readonly bootable: boolean;
  /** The VDI in it; `undefined` where it is empty or the archive does not describe it. */
  readonly vdi?: XvaVdi | undefined;
}

/** A virtual disk image, whether or not the archive holds its data. */
export interface XvaVdi {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Of the source. */
  readonly uuid: string;
  /** As people call it. */
  readonly name: string;
  /** In bytes; `undefined` where the record has none. */
  readonly size: number | undefined;
  /** `user`, `system`, `suspend` … */
  readonly type: string;
  /** Where it lay; `undefined` where the archive does not describe it. */
  readonly sr?: XvaSr | undefined;
}

/** A storage repository. */
export interface XvaSr {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Of the source. */
  readonly uuid: string;
  /** As people call it. */
  readonly name: string;
  /** `ext`, `lvm`, `nfs`, `iso` … */
  readonly type: string;
}

/** A network interface of a VM. */
export interface XvaNic {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Of the VIF. */
  readonly uuid: string;
  /** Its position. */
  readonly device: string;
  /** The address; may be empty. */
  readonly mac: string;
  /** In bytes; `undefined` where the record has none. */
  readonly mtu: number | undefined;
  /** Its network; `undefined` where the archive does not describe it. */
  readonly network?: {
    /** `Ref:<n>`: its name in this archive. */
    readonly id: string;
    /** Of the source. */
    readonly uuid: string;
    /** As people call it. */
    readonly name: string;
    /** The bridge on the source's hosts. */
    readonly bridge: string;
  };
}

/** A VM as an archive describes it. Sizes in bytes. */
export interface XvaVm {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Of the VM; of a snapshot's archive the snapshot's. */
  readonly uuid: string;
  /** As people call it. */
  readonly name: string;
  /** What people wrote about it. */
  readonly description: string;
  /** So are snapshots. */
  readonly isTemplate: boolean;
  /** `Halted`, `Running`, `Suspended` … */
  readonly powerState: string;
  /** How many processors; `undefined` where the record has none. */
  readonly cpus: {
    /** At most. */
    readonly max: number | undefined;
    /** When it starts. */
    readonly atStartup: number | undefined;
  };
  /** In bytes; `undefined` where the record has none. */
  readonly memory: {
    /** The most that it can ever have. */
    readonly staticMax: number | undefined;
    /** The most that it has while it runs. */
    readonly dynamicMax: number | undefined;
    /** The least that it has while it runs. */
    readonly dynamicMin: number | undefined;
    /** The least that it can ever have. */
    readonly staticMin: number | undefined;
  };
  /** `hvm`, `pv`, `pvh` …; empty in archives of old hosts. */
  readonly domainType: string;
  /** Of HVM guests; `undefined` for paravirtual ones. */
  readonly firmware: 'bios' | 'uefi' | undefined;
  /** Is it asked for? */
  readonly secureBoot: boolean;
  /** The order of boot devices, such as `cdn`; empty for paravirtual guests. */
  readonly bootOrder: string;
  /** Does a virtual TPM belong to it? */
  readonly hasVtpm: boolean;
  /** In the order of their positions. */
  readonly drives: readonly XvaDrive[];
  /** In the order of their positions. */
  readonly nics: readonly XvaNic[];
}

/**
 * The VM of an archive; of one that holds its snapshots, too, the VM itself.
 *
 * @throws FormatError `XVA_METADATA` where there is none.
 */
export function xvaVm(metadata: OvaMetadata): XvaVm {
  const vm = vmObjectOf(metadata);
  const boot = mapOf(vm, 'HVM_boot_params');
  const policy = textOf(vm, 'HVM_boot_policy');
  return {
    id: vm.id,
    uuid: textOf(vm, 'uuid'),
    name: textOf(vm, 'name_label'),
    description: textOf(vm, 'name_description'),
    isTemplate: isTrue(vm, 'is_a_template'),
    powerState: textOf(vm, 'power_state'),
    cpus: { max: numberOf(vm, 'VCPUs_max'), atStartup: numberOf(vm, 'VCPUs_at_startup') },
    memory: {
      staticMax: numberOf(vm, 'memory_static_max'),
      dynamicMax: numberOf(vm, 'memory_dynamic_max'),
      dynamicMin: numberOf(vm, 'memory_dynamic_min'),
      staticMin: numberOf(vm, 'memory_static_min'),
    },
    domainType: textOf(vm, 'domain_type'),
    firmware: policy === '' ? undefined : boot['firmware'] === 'uefi' ? 'uefi' : 'bios',
    secureBoot: mapOf(vm, 'platform')['secureboot'] === 'true',
    bootOrder: policy === '' ? '' : (boot['order'] ?? ''),
    hasVtpm: objectsOf(metadata, 'VTPM').some((vtpm) => textOf(vtpm, "vTPM'_VM") === vm.id),
    drives: drivesOf(metadata, vm),
    nics: nicsOf(metadata, vm),
  };
}

/** The record of the archive's VM; `XVA_METADATA` where there is none. */
export function vmObjectOf(metadata: OvaMetadata): OvaObject {
  const vms = objectsOf(metadata, 'VM');
  const vm = vms.find((object) => !isTrue(object, 'is_a_snapshot')) ?? vms[0];
  if (vm !== undefined) return vm;
  throw new FormatError('XVA_METADATA', { what: 'ova.xml', offset: 0, expected: 'a VM', actual: 'none' });
}

function drivesOf(metadata: OvaMetadata, vm: OvaObject): XvaDrive[] {
  const vdis = byId(metadata, 'VDI');
  const srs = byId(metadata, 'SR');
  return partsOf(metadata, 'VBD', vm, 'userdevice').map((vbd) => {
    const vdi = vdis.get(textOf(vbd, 'VDI'));
    const type = textOf(vbd, 'type');
    return {
      id: vbd.id,
      uuid: textOf(vbd, 'uuid'),
      device: textOf(vbd, 'userdevice'),
      type: type === 'CD' || type === 'Floppy' ? type : 'Disk',
      mode: textOf(vbd, 'mode') === 'RO' ? 'RO' : 'RW',
      bootable: isTrue(vbd, 'bootable'),
      vdi: vdi && vdiOf(vdi, srs.get(textOf(vdi, 'SR'))),
    };
  });
}

function vdiOf(vdi: OvaObject, sr: OvaObject | undefined): XvaVdi {
  return {
    id: vdi.id,
    uuid: textOf(vdi, 'uuid'),
    name: textOf(vdi, 'name_label'),
    size: numberOf(vdi, 'virtual_size'),
    type: textOf(vdi, 'type'),
    sr: sr && { id: sr.id, uuid: textOf(sr, 'uuid'), name: textOf(sr, 'name_label'), type: textOf(sr, 'type') },
  };
}

function nicsOf(metadata: OvaMetadata, vm: OvaObject): XvaNic[] {
  const networks = byId(metadata, 'network');
  return partsOf(metadata, 'VIF', vm, 'device').map((vif) => {
    const network = networks.get(textOf(vif, 'network'));
    return {
      id: vif.id,
      uuid: textOf(vif, 'uuid'),
      device: textOf(vif, 'device'),
      mac: textOf(vif, 'MAC'),
      mtu: numberOf(vif, 'MTU'),
      ...(network && {
        network: {
          id: network.id,
          uuid: textOf(network, 'uuid'),
          name: textOf(network, 'name_label'),
          bridge: textOf(network, 'bridge'),
        },
      }),
    };
  });
}

/** The objects of a class that are the VM's, in the order of their positions. */
function partsOf(metadata: OvaMetadata, type: string, vm: OvaObject, position: string): OvaObject[] {
  return objectsOf(metadata, type)
    .filter((object) => textOf(object, 'VM') === vm.id)
    .sort((a, b) => Number(textOf(a, position)) - Number(textOf(b, position)));
}

function byId(metadata: OvaMetadata, type: string): ReadonlyMap<string, OvaObject> {
  return new Map(objectsOf(metadata, type).map((object) => [object.id, object]));
}
