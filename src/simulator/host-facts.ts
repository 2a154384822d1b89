import type { Profile } from './profiles.ts';

/** The features an edition may lack, as `restrict_…` keys; `"true"` means: not allowed. */
const RESTRICTION_KEYS = [
  'restrict_vlan',
  'restrict_pool_attached_storage',
  'restrict_pooling',
  'restrict_email_alerting',
  'restrict_rbac',
  'restrict_dmc',
  'restrict_checkpoint',
  'restrict_vmss',
  'restrict_intellicache',
  'restrict_gpu',
  'restrict_dr',
  'restrict_vif_locking',
  'restrict_storage_xen_motion',
  'restrict_vgpu',
  'restrict_vss',
  'restrict_pci_device_for_auto_update',
  'restrict_xen_motion',
  'restrict_ad',
  'restrict_live_patching',
  'restrict_pool_size',
  'restrict_cbt',
  'restrict_usb_passthrough',
  'restrict_network_sriov',
  'restrict_zstd_export',
  'restrict_vtpm',
  'restrict_vm_groups',
] as const;

/** A feature that an edition may lack, as the host spells it: `restrict_cbt`, `restrict_vtpm` … */
export type Restriction = (typeof RESTRICTION_KEYS)[number];

/** `pool.restrictions`, and the same in `host.license_params`. */
export function poolRestrictions({ restrictions, changedBlockTracking, vtpm }: Profile): Record<string, string> {
  const known = RESTRICTION_KEYS.filter(
    (key) => (changedBlockTracking || key !== 'restrict_cbt') && (vtpm || key !== 'restrict_vtpm'),
  );
  return Object.fromEntries(known.map((key) => [key, String(restrictions.includes(key))]));
}

/** `host.software_version`. */
export function softwareVersion(profile: Profile, hostname: string): Record<string, string> {
  const [major = '', minor = ''] = profile.xapiVersion.split('.');
  const short = profile.productVersion.split('.').slice(0, 2).join('.');
  return {
    product_version: profile.productVersion,
    product_version_text: short,
    product_version_text_short: short,
    product_brand: profile.productBrand,
    platform_name: 'XCP',
    platform_version: profile.platformVersion,
    xapi: `${major}.${minor}`,
    xapi_build: profile.xapiVersion,
    build_number: 'cloud',
    git_id: '0',
    hostname,
    date: '20250901T00:00:00Z',
    dbv: '0.0.1',
    db_schema: '5.790',
    xen: '4.17.5',
    linux: '4.19.0+1',
    is_preview_release: 'false',
    xencenter_min: '2.21',
    xencenter_max: '2.21',
    network_backend: 'openvswitch',
  };
}
