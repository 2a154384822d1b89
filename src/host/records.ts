/**
 * The host's own records, reduced to the fields that this library touches, under the host's own names. Whatever else a
 * host sends stays in the record at run time. Source: xapi-project/xen-api `ocaml/idl/datamodel*.ml`.
 */

/** An opaque handle of one session; only uuids outlive it. */
export type Ref = string;

/** What the host writes where an object is missing. */
export const NULL_REF = 'OpaqueRef:NULL';

/** A map of the host, for example `other_config`. */
export type StringMap = Readonly<Record<string, string>>;

interface Identified {
  /** Its handle in this session. */
  readonly ref: Ref;
  /** Its name for ever. */
  readonly uuid: string;
}

/** The pool, of which there is one. */
export interface PoolRecord extends Identified {
  /** Empty where nobody has named it. */
  readonly name_label: string;
  /** The host that coordinates. */
  readonly master: Ref;
  /** {@link NULL_REF} where there is none. */
  readonly default_SR: Ref;
  /** What the licence forbids: `restrict_cbt` and others to `true` or `false`. Missing on old hosts. */
  readonly restrictions?: StringMap;
  /** Notes of anybody, by key. */
  readonly other_config: StringMap;
}

/** A host of the pool. */
export interface HostRecord extends Identified {
  /** As people call it. */
  readonly name_label: string;
  /** Its own. */
  readonly hostname: string;
  /** As the pool names it; need not lead there from outside. */
  readonly address: string;
  /** May VMs start on it? */
  readonly enabled: boolean;
  /** `product_brand`, `product_version`, `xapi` … */
  readonly software_version: StringMap;
  /** Of its edition: `restrict_cbt` and others to `true` or `false`. */
  readonly license_params: StringMap;
  /** With {@link API_version_minor} the version of the API. */
  readonly API_version_major: number;
  /** See {@link API_version_major}. */
  readonly API_version_minor: number;
}

/** A storage repository. */
export interface SrRecord extends Identified {
  /** As people call it. */
  readonly name_label: string;
  /** `ext`, `nfs`, `lvm`, `lvmoiscsi`, `iso` … */
  readonly type: string;
  /** `user`, `iso` … */
  readonly content_type: string;
  /** Do several hosts see it? */
  readonly shared: boolean;
  /** In bytes. */
  readonly physical_size: number;
  /** In bytes. */
  readonly physical_utilisation: number;
  /** Notes of its driver. */
  readonly sm_config: StringMap;
  /** The connections of hosts to it. */
  readonly PBDs: readonly Ref[];
}

/** The connection of one host to one storage repository. */
export interface PbdRecord extends Identified {
  /** The host. */
  readonly host: Ref;
  /** The storage repository. */
  readonly SR: Ref;
  /** Is it there now? */
  readonly currently_attached: boolean;
}

/** A network of the pool. */
export interface NetworkRecord extends Identified {
  /** As people call it. */
  readonly name_label: string;
  /** The bridge on the hosts, for example `xenbr0`. */
  readonly bridge: string;
  /** `nbd` or `insecure_nbd`; missing before 7.3. */
  readonly purpose?: readonly string[];
  /** The hosts' interfaces on it. */
  readonly PIFs: readonly Ref[];
  /** Notes of anybody, by key. */
  readonly other_config: StringMap;
}

/** The interface of one host on one network. */
export interface PifRecord extends Identified {
  /** The host. */
  readonly host: Ref;
  /** The network. */
  readonly network: Ref;
  /** IPv4; empty where it has none. */
  readonly IP: string;
  /** With the length of the prefix, for example `fe80::1/64`. */
  readonly IPv6: readonly string[];
  /** Is it up? */
  readonly currently_attached: boolean;
}

/** What a VM does now. */
export type PowerState = 'Running' | 'Halted' | 'Suspended' | 'Paused';

/** A VM; snapshots, templates and control domains are records of this class, too. */
export interface VmRecord extends Identified {
  /** As people call it; need not be unique. */
  readonly name_label: string;
  /** What people wrote about it. */
  readonly name_description: string;
  /** What it does now. */
  readonly power_state: PowerState;
  /** Is it a template? Snapshots are, too. */
  readonly is_a_template: boolean;
  /** Is it a snapshot of a VM? */
  readonly is_a_snapshot: boolean;
  /** Did it come with the host? Missing on old hosts. */
  readonly is_default_template?: boolean;
  /** Is it the host's own domain 0? */
  readonly is_control_domain: boolean;
  /** The VM that it is a snapshot of; {@link NULL_REF} where there is none. */
  readonly snapshot_of: Ref;
  /** When the snapshot was taken, in the host's notation of time. */
  readonly snapshot_time: string;
  /** Its drives. */
  readonly VBDs: readonly Ref[];
  /** Its network interfaces. */
  readonly VIFs: readonly Ref[];
  /** Missing before XenServer 8. */
  readonly VTPMs?: readonly Ref[];
  /** Missing before 7.3. */
  readonly VUSBs?: readonly Ref[];
  /** The host that it runs on; {@link NULL_REF} where it does not run. */
  readonly resident_on: Ref;
  /** Where its memory is while it is suspended. */
  readonly suspend_VDI: Ref;
  /** The host that it likes to run on. */
  readonly affinity: Ref;
  /** What its guest tells, as {@link VmGuestMetricsRecord}. */
  readonly guest_metrics: Ref;
  /** Notes of anybody, by key. They travel into snapshots, copies and exports. */
  readonly other_config: StringMap;
  /** Forbidden operations, each with a reason. */
  readonly blocked_operations: StringMap;
  /** Running tasks, each with its operation. */
  readonly current_operations: StringMap;
  /** Settings of its virtual hardware. */
  readonly platform: StringMap;
  /** For people. */
  readonly tags: readonly string[];
}

/** What the tools in a guest tell. */
export interface VmGuestMetricsRecord extends Identified {
  /** Are tools in the guest? Missing on old hosts, which fill in {@link PV_drivers_version} only. */
  readonly PV_drivers_detected?: boolean;
  /** `major`, `minor`, `micro`; empty where there are no tools. */
  readonly PV_drivers_version: StringMap;
  /** What the tools say they can do, for example `feature-quiesce`. */
  readonly other: StringMap;
}

/** A drive of a VM, and what is in it. */
export interface VbdRecord extends Identified {
  /** The VM. */
  readonly VM: Ref;
  /** The disk; {@link NULL_REF} in an empty drive. */
  readonly VDI: Ref;
  /** What kind of drive. */
  readonly type: 'Disk' | 'CD' | 'Floppy';
  /** The position: `0`, `1` … */
  readonly userdevice: string;
  /** The guest's name for it, for example `xvda`; empty where it is not attached. */
  readonly device: string;
  /** Does the VM boot from it? */
  readonly bootable: boolean;
  /** May the guest write? */
  readonly mode: 'RO' | 'RW';
  /** Is nothing in it? */
  readonly empty: boolean;
  /** Does a running VM have it? */
  readonly currently_attached: boolean;
  /** Notes of anybody, by key. */
  readonly other_config: StringMap;
}

/** A virtual disk image. */
export interface VdiRecord extends Identified {
  /** As people call it. */
  readonly name_label: string;
  /** What people wrote about it. */
  readonly name_description: string;
  /** The storage that it lies on. */
  readonly SR: Ref;
  /** The drives that have it, in the control domain, too. */
  readonly VBDs: readonly Ref[];
  /** Its name on the storage. */
  readonly location: string;
  /** In bytes. */
  readonly virtual_size: number;
  /** In bytes. */
  readonly physical_utilisation: number;
  /** `user`, `system`, `suspend`, `cbt_metadata` … */
  readonly type: string;
  /** May several VMs have it? */
  readonly sharable: boolean;
  /** May nobody write to it? */
  readonly read_only: boolean;
  /** Is it a disk, not only a node in the chain of one? */
  readonly managed: boolean;
  /** Is it a snapshot of a disk? */
  readonly is_a_snapshot: boolean;
  /** The disk that it is a snapshot of; {@link NULL_REF} where there is none. */
  readonly snapshot_of: Ref;
  /** Does a start of its VM throw away what was written? */
  readonly on_boot: 'persist' | 'reset';
  /** Missing before 7.3. */
  readonly cbt_enabled?: boolean;
  /** Notes of the storage driver, such as `vhd-parent`. */
  readonly sm_config: StringMap;
  /** Notes of anybody, by key. They travel into snapshots and copies. */
  readonly other_config: StringMap;
  /** For people. */
  readonly tags: readonly string[];
}

/** A network interface of a VM. */
export interface VifRecord extends Identified {
  /** The VM. */
  readonly VM: Ref;
  /** The network. */
  readonly network: Ref;
  /** The position: `0`, `1` … */
  readonly device: string;
  /** Its address. */
  readonly MAC: string;
  /** Did the host make the address? */
  readonly MAC_autogenerated: boolean;
  /** In bytes. */
  readonly MTU: number;
  /** Notes of anybody, by key. */
  readonly other_config: StringMap;
}

/** A virtual TPM of a VM. */
export interface VtpmRecord extends Identified {
  /** The VM. */
  readonly VM: Ref;
  /** As the host says: its contents are never copied. */
  readonly is_unique: boolean;
  /** As the host says: its contents are protected. */
  readonly is_protected: boolean;
}

/** A storage driver. */
export interface SmRecord extends Identified {
  /** The SR type it drives. */
  readonly type: string;
  /** Feature name to version, for example `VDI_CONFIG_CBT`. */
  readonly features: Readonly<Record<string, number>>;
}

/** Asynchronous work of the host. */
export interface TaskRecord extends Identified {
  /** As who began it called it. */
  readonly name_label: string;
  /** How far it is. */
  readonly status: 'pending' | 'success' | 'failure' | 'cancelling' | 'cancelled';
  /** 0 to 1. */
  readonly progress: number;
  /** XML-RPC text. */
  readonly result: string;
  /** The code, then its parameters. */
  readonly error_info: readonly string[];
}

/** The classes whose records are typed, by the host's name. */
export interface RecordByClass {
  /** See {@link PoolRecord}. */
  readonly pool: PoolRecord;
  /** See {@link HostRecord}. */
  readonly host: HostRecord;
  /** See {@link SrRecord}. */
  readonly SR: SrRecord;
  /** See {@link PbdRecord}. */
  readonly PBD: PbdRecord;
  /** See {@link NetworkRecord}. */
  readonly network: NetworkRecord;
  /** See {@link PifRecord}. */
  readonly PIF: PifRecord;
  /** See {@link VmRecord}. */
  readonly VM: VmRecord;
  /** See {@link VmGuestMetricsRecord}. */
  readonly VM_guest_metrics: VmGuestMetricsRecord;
  /** See {@link VbdRecord}. */
  readonly VBD: VbdRecord;
  /** See {@link VdiRecord}. */
  readonly VDI: VdiRecord;
  /** See {@link VifRecord}. */
  readonly VIF: VifRecord;
  /** See {@link VtpmRecord}. */
  readonly VTPM: VtpmRecord;
  /** See {@link SmRecord}. */
  readonly SM: SmRecord;
  /** See {@link TaskRecord}. */
  readonly task: TaskRecord;
}

/** A class whose records are typed. */
export type RecordClass = keyof RecordByClass;
