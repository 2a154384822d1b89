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
  readonly restrictions: readonly string[];
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

const XENSERVER_7_2: Profile = {
  ...XCP_NG_8_2,
  name: 'xenserver-7.2',
  productBrand: 'XenServer',
  productVersion: '7.2.0',
  platformVersion: '2.3.0',
  xapiVersion: '1.14.45',
  apiVersion: [2, 7],
  errorObjects: false,
  headLimit: undefined,
  changedBlockTracking: false,
  nbd: false,
  quiesce: 'available',
  xvaChecksum: 'sha1',
  xvaZstd: false,
  rawExportTar: false,
};

/** Every release that can be simulated, by name. */
export const profiles = {
  'xcp-ng-8.3': XCP_NG_8_3,
  'xcp-ng-8.2': XCP_NG_8_2,
  'xenserver-7.2': XENSERVER_7_2,
} as const satisfies Readonly<Record<string, Profile>>;

/** A name in {@link profiles}. */
export type ProfileName = keyof typeof profiles;
