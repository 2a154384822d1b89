import { poolRestrictions, softwareVersion } from './host-facts.ts';
import type { NetworkPurpose } from './network-purpose.ts';
import type { HostIdentity, PoolHost, PoolRefs } from './simulation.ts';
import { GIB } from './sizes.ts';
import { STORAGE_DRIVERS } from './storage-drivers.ts';
import type { World } from './world.ts';

/** A network of the pool. */
export interface NewNetwork {
  /** The first host's address on it. @defaultValue none */
  readonly address?: string | undefined;
  /** The address of each host. @defaultValue `[address]` */
  readonly addresses?: readonly string[] | undefined;
  /**
   * What it may be used for beside the guests' traffic. Both over the whole pool contradict each other: the API refuses
   * that, and only a pool that something broke has it.
   * @defaultValue nothing
   */
  readonly purposes?: readonly NetworkPurpose[] | undefined;
}

/** Storage beside what every pool has. */
export interface NewStorage {
  /** As people call it. */
  readonly name: string;
  /** `ext`, `nfs`, `lvm`, `lvmoiscsi`, `iscsi` (raw LUNs: no snapshots), `smb` … */
  readonly type: string;
  /** Seen by all hosts, or by the first one alone. @defaultValue `false` */
  readonly shared?: boolean | undefined;
  /** In bytes. @defaultValue 2 TiB */
  readonly size?: number | undefined;
}

/** A host that the pool is to have. */
export type NewHost = Omit<HostIdentity, 'certificate'>;

/** What a pool was filled with. */
export interface SetUp {
  readonly refs: PoolRefs;
  readonly hosts: readonly Pick<PoolHost, 'ref' | 'controlDomain'>[];
}

/**
 * Fills an empty world with what every pool has: hosts with their control domains, networks, and storage. Each host has
 * local storage; what is shared all of them see. The first host is the coordinator.
 */
export function setUpPool(
  world: World,
  hosts: readonly NewHost[],
  networks: readonly NewNetwork[] = [{ addresses: hosts.map(({ address }) => address) }, { address: '192.0.2.20' }],
  storages: readonly NewStorage[] = [],
): SetUp {
  const restrictions = poolRestrictions(world.profile);
  const made = hosts.map((host) => addHost(world, host, restrictions));
  const all = made.map(({ ref }) => ref);
  const { ref: host, controlDomain } = made[0]!;
  const local = made.map(({ ref }) => addStorage(world, [ref], 'ext', 'Local storage', 'user'));
  const shared = addStorage(world, all, 'nfs', 'Shared storage', 'user', {
    shared: true,
    server: '192.0.2.10',
    serverpath: '/export',
  });
  for (const { name, type, shared = false, size } of storages) {
    const sr = addStorage(world, shared ? all : [host], type, name, 'user', { shared });
    if (size !== undefined) world.updateObject('SR', sr, { physical_size: size });
  }
  const isoSr = addStorage(world, all, 'iso', 'ISO library', 'iso');
  const [network] = networks.map((one, index) => addNetwork(world, all, index, one));
  const defaultSr = made.length === 1 ? local[0]! : shared;
  const pool = world.addObject('pool', {
    name_label: 'simulated pool',
    master: host,
    default_SR: defaultSr,
    suspend_image_SR: defaultSr,
    crash_dump_SR: defaultSr,
    restrictions,
    ha_cluster_stack: 'xhad',
    tls_verification_enabled: true,
  });
  for (const driver of STORAGE_DRIVERS) world.addObject('SM', driver);
  return { refs: { pool, host, controlDomain, network: network!, defaultSr, isoSr }, hosts: made };
}

function addHost(
  world: World,
  { address, hostname }: NewHost,
  restrictions: ReturnType<typeof poolRestrictions>,
): Pick<PoolHost, 'ref' | 'controlDomain'> {
  const { profile } = world;
  const metrics = world.addObject('host_metrics', { memory_total: 64 * GIB, live: true });
  const host = world.addObject('host', {
    name_label: hostname,
    name_description: 'Default install',
    hostname,
    address,
    metrics,
    enabled: true,
    API_version_major: profile.apiVersion[0],
    API_version_minor: profile.apiVersion[1],
    API_version_vendor: 'XenSource',
    API_version_vendor_implementation: {},
    software_version: softwareVersion(profile, hostname),
    license_params: restrictions,
    capabilities: ['xen-3.0-x86_64', 'hvm-3.0-x86_32', 'hvm-3.0-x86_32p', 'hvm-3.0-x86_64'],
    cpu_info: {
      cpu_count: '16',
      socket_count: '1',
      vendor: 'GenuineIntel',
      speed: '2400.000',
      modelname: 'Simulated CPU',
    },
    sched_policy: 'credit',
    supported_bootloaders: ['pygrub', 'eliloader'],
    logging: {},
    other_config: { agent_start_time: '1700000000.', boot_time: '1699999900.' },
    edition: profile.productBrand === 'XCP-ng' ? 'xcp-ng' : 'free',
    power_on_mode: '',
    tls_verification_enabled: true,
    https_only: true,
  });
  const controlDomain = world.addObject('VM', {
    name_label: `Control domain on host: ${hostname}`,
    name_description: 'The domain which manages physical devices and manages other domains',
    power_state: 'Running',
    is_control_domain: true,
    domid: 0,
    resident_on: host,
    affinity: host,
    memory_static_max: 4 * GIB,
    memory_dynamic_max: 4 * GIB,
    memory_dynamic_min: 4 * GIB,
    memory_static_min: 4 * GIB,
    memory_target: 4 * GIB,
    VCPUs_max: 4,
    VCPUs_at_startup: 4,
    domain_type: 'pv',
    other_config: { is_system_domain: 'true', perfmon: '' },
  });
  world.updateObject('host', host, { control_domain: controlDomain });
  return { ref: host, controlDomain };
}

/** A storage repository, plugged into these hosts. */
export function addStorage(
  world: World,
  hosts: readonly string[],
  type: string,
  name: string,
  contentType: string,
  { shared = false, ...deviceConfig }: { shared?: boolean; [key: string]: string | boolean } = {},
): string {
  const sr = world.addObject('SR', {
    name_label: name,
    type,
    content_type: contentType,
    shared,
    physical_size: 2048 * GIB,
    allowed_operations: ['vdi_create', 'vdi_destroy', 'vdi_snapshot', 'vdi_clone', 'scan', 'update'],
    other_config: {},
    sm_config: {},
  });
  for (const host of hosts) {
    world.addObject('PBD', {
      host,
      SR: sr,
      currently_attached: true,
      device_config: deviceConfig as Record<string, string>,
    });
  }
  return sr;
}

function addNetwork(world: World, hosts: readonly string[], index: number, options: NewNetwork): string {
  const { address = '', addresses = [address], purposes = [] } = options;
  const network = world.addObject('network', {
    name_label: `Pool-wide network associated with eth${index}`,
    bridge: `xenbr${index}`,
    MTU: 1500,
    managed: true,
    other_config: {},
    default_locking_mode: 'unlocked',
    purpose: [...purposes],
  });
  for (const [at, host] of hosts.entries()) addPif(world, network, host, index, at, addresses[at] ?? '');
  return network;
}

function addPif(world: World, network: string, host: string, index: number, at: number, address: string): void {
  const metrics = world.addObject('PIF_metrics', {
    carrier: true,
    device_name: 'simulated',
    speed: 1000,
    duplex: true,
  });
  world.addObject('PIF', {
    device: `eth${index}`,
    network,
    host,
    metrics,
    MAC: `02:00:00:00:0${at}:0${index}`,
    MTU: 1500,
    VLAN: -1,
    physical: true,
    management: index === 0,
    currently_attached: true,
    ip_configuration_mode: address === '' ? 'None' : 'Static',
    IP: address,
    netmask: address === '' ? '' : '255.255.255.0',
  });
}
