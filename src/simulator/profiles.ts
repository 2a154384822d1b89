import type { Restriction } from './host-facts.ts';

/**
 * What a release of the hypervisor can do, as far as a backup can tell. One row is one release: to simulate another,
 * add a row.
 */
export interface Profile {
  /** For example `xcp-ng-8.3`. */
  readonly name: string;
  readonly productBrand: string;
  readonly productVersion: string;
  readonly platformVersion: string;
  /** The toolstack's version: `major.minor.micro`. */
  readonly xapiVersion: string;
  readonly apiVersion: readonly [major: number, minor: number];
  /** What `host.license_params` and `pool.restrictions` say, as far as `restrict_*` is `"true"`. */
  readonly restrictions: readonly Restriction[];
  /** JSON-RPC 2 errors are objects; before XenServer 7.3 plain arrays. */
  readonly errorObjects: boolean;
  /** Longest request head in bytes, or none. */
  readonly headLimit: number | undefined;
  /** CBT, NBD, network purposes. */
  readonly changedBlockTracking: boolean;
  readonly nbd: boolean;
  /** `VM.snapshot` takes `ignore_vdis`. */
  readonly snapshotIgnoreVdis: boolean;
  /** `VM.snapshot_with_quiesce`: served, or removed. */
  readonly quiesce: 'available' | 'removed';
  readonly vtpm: boolean;
  /** Name of the checksum files in an XVA. */
  readonly xvaChecksum: 'sha1' | 'xxhash';
  readonly xvaZstd: boolean;
  /** Allocated chunks go into an XVA even where they are zero (xapi 26 and later). */
  readonly xvaFromAllocation: boolean;
  /** `/export_raw_vdi?format=tar`. */
  readonly rawExportTar: boolean;
  /** `format=qcow2` of the raw handlers. */
  readonly qcow2: boolean;
  /** `/export_metadata?excluded_device_types=…`. */
  readonly excludedDeviceTypes: boolean;
}

const XCP_NG_8_3: Profile = {
  name: 'xcp-ng-8.3',
  productBrand: 'XCP-ng',
  productVersion: '8.3.0',
  platformVersion: '3.4.0',
  xapiVersion: '25.33.1',
  apiVersion: [2, 21],
  restrictions: [],
  errorObjects: true,
  headLimit: 1006,
  changedBlockTracking: true,
  nbd: true,
  snapshotIgnoreVdis: true,
  quiesce: 'removed',
  vtpm: true,
  xvaChecksum: 'xxhash',
  xvaZstd: true,
  xvaFromAllocation: false,
  rawExportTar: true,
  qcow2: false,
  excludedDeviceTypes: true,
};

const XCP_NG_8_2: Profile = {
  ...XCP_NG_8_3,
  name: 'xcp-ng-8.2',
  productVersion: '8.2.1',
  platformVersion: '3.2.1',
  xapiVersion: '1.249.41',
  apiVersion: [2, 15],
  snapshotIgnoreVdis: false,
  vtpm: false,
  excludedDeviceTypes: false,
};

const CITRIX_HYPERVISOR_8_2: Profile = {
  ...XCP_NG_8_2,
  name: 'citrix-hypervisor-8.2',
  productBrand: 'Citrix Hypervisor',
  productVersion: '8.2.1',
  xapiVersion: '1.249.32',
};

/** Rolling: what its updates brought until autumn 2025. */
const XENSERVER_8: Profile = {
  ...XCP_NG_8_3,
  name: 'xenserver-8',
  productBrand: 'XenServer',
  productVersion: '8.4.0',
};

/** The last release with quiesced snapshots, and with SHA-1 in its archives. */
const CITRIX_HYPERVISOR_8_0: Profile = {
  ...CITRIX_HYPERVISOR_8_2,
  name: 'citrix-hypervisor-8.0',
  productVersion: '8.0.0',
  platformVersion: '3.0.0',
  xapiVersion: '1.160.1',
  apiVersion: [2, 12],
  headLimit: undefined,
  quiesce: 'available',
  xvaChecksum: 'sha1',
  xvaZstd: false,
};

/** The first release with changed block tracking and NBD. */
const XENSERVER_7_3: Profile = {
  ...CITRIX_HYPERVISOR_8_0,
  name: 'xenserver-7.3',
  productBrand: 'XenServer',
  productVersion: '7.3.0',
  platformVersion: '2.4.0',
  xapiVersion: '1.52.0',
  apiVersion: [2, 8],
  rawExportTar: false,
};

const XENSERVER_7_2: Profile = {
  ...XENSERVER_7_3,
  name: 'xenserver-7.2',
  productVersion: '7.2.0',
  platformVersion: '2.3.0',
  xapiVersion: '1.14.45',
  apiVersion: [2, 7],
  errorObjects: false,
  changedBlockTracking: false,
  nbd: false,
};

/** Every release that can be simulated, by name. */
export const profiles = {
  'xcp-ng-8.3': XCP_NG_8_3,
  'xcp-ng-8.2': XCP_NG_8_2,
  'xenserver-8': XENSERVER_8,
  'citrix-hypervisor-8.2': CITRIX_HYPERVISOR_8_2,
  'citrix-hypervisor-8.0': CITRIX_HYPERVISOR_8_0,
  'xenserver-7.3': XENSERVER_7_3,
  'xenserver-7.2': XENSERVER_7_2,
} as const satisfies Readonly<Record<string, Profile>>;

/** The release that a simulated pool plays. */
export type ProfileName = keyof typeof profiles;
