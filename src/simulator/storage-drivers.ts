import type { RecordOf } from './data-model.ts';

const BLOCK_FEATURES = [
  'SR_PROBE',
  'SR_UPDATE',
  'VDI_CREATE',
  'VDI_DELETE',
  'VDI_ATTACH',
  'VDI_DETACH',
  'VDI_CLONE',
  'VDI_SNAPSHOT',
  'VDI_RESIZE',
  'VDI_MIRROR',
  'VDI_GENERATE_CONFIG',
  'VDI_UPDATE',
  'VDI_CONFIG_CBT',
];

const RAW_FEATURES = ['SR_PROBE', 'VDI_CREATE', 'VDI_DELETE', 'VDI_ATTACH', 'VDI_DETACH', 'VDI_INTRODUCE'];

/** Which features the driver of an SR type has. */
const FEATURES: Readonly<Record<string, readonly string[]>> = {
  ext: BLOCK_FEATURES,
  nfs: BLOCK_FEATURES,
  lvm: BLOCK_FEATURES,
  lvmoiscsi: BLOCK_FEATURES,
  lvmohba: BLOCK_FEATURES,
  smb: BLOCK_FEATURES,
  file: BLOCK_FEATURES,
  iso: ['VDI_ATTACH', 'VDI_DETACH', 'SR_SCAN', 'SR_ATTACH', 'SR_DETACH'],
  iscsi: RAW_FEATURES,
  udev: RAW_FEATURES,
};

/** The rows of the `SM` class. */
export const STORAGE_DRIVERS: readonly Partial<RecordOf<'SM'>>[] = Object.entries(FEATURES).map(([type, features]) => ({
  name_label: type,
  type,
  vendor: 'Citrix Systems Inc',
  copyright: '(C) Citrix Systems Inc',
  version: '1.0',
  required_api_version: '1.0',
  capabilities: features,
  features: Object.fromEntries(features.map((feature) => [feature, '1'])),
  driver_filename: `/opt/xensource/sm/${type}SR`,
}));

/** Can an SR of this type do it? For example `VDI_SNAPSHOT`, `VDI_CONFIG_CBT`. */
export function storageCan(type: string, feature: string): boolean {
  return FEATURES[type]?.includes(feature) ?? false;
}
