/** SR drivers that store disks as VHD files or volumes. Source: xapi-project/sm `drivers/`. */
const VHD_SR_TYPES: ReadonlySet<string> = new Set(['ext', 'file', 'lvm', 'lvmohba', 'lvmoiscsi', 'nfs', 'smb']);

/**
 * Does storage of this type keep its disks as VHDs? Then an export as VHD knows what was never written, and a new disk
 * reads as zeros.
 */
export function storesVhds(srType: string): boolean {
  return VHD_SR_TYPES.has(srType);
}
