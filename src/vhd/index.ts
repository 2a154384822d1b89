/**
 * VHD files, chains and streams: read, write, check, merge, relink.
 *
 * @module xen-backup-sdk/vhd
 */

export {
  FOOTER_SIZE,
  fromVhdTime,
  HEADER_SIZE,
  MAX_VHD_SIZE,
  NIL_UUID,
  toVhdTime,
  VHD_BLOCK_SIZE,
  type VhdKind,
} from './constants.ts';
export type { VhdFinding } from './findings.ts';
export { encodeFooter, type VhdFooter } from './footer.ts';
export { type Geometry, geometryOf } from './geometry.ts';
export { encodeHeader, type ParentLocator, type VhdHeader } from './header.ts';
export type { VhdBlocksOptions } from './vhd-blocks.ts';
export {
  type OpenVhdChainOptions,
  type OpenVhdLayersOptions,
  openVhdChain,
  openVhdLayers,
  type VhdChain,
} from './vhd-chain.ts';
export {
  type CheckVhdOptions,
  checkVhd,
  type VhdCheckLevel,
  type VhdCheckReport,
  type VhdSummary,
} from './vhd-check.ts';
export { openVhdDraft, type VhdDraft, type VhdDraftOptions, type WriteDraftOptions } from './vhd-draft.ts';
export type { ParentLink, VhdParent } from './vhd-link.ts';
export { type MergeVhdOptions, mergeVhdChain } from './vhd-merge.ts';
export { overlayVhds } from './vhd-overlay.ts';
export type { VhdIdentity } from './vhd-plan.ts';
export { type ReadVhdStreamOptions, readVhdStream, type VhdStreamReading } from './vhd-read-stream.ts';
export { type OpenVhdOptions, openVhd, type VhdDisk } from './vhd-reader.ts';
export { relinkVhd } from './vhd-relink.ts';
export { type RepairedVhd, repairVhd } from './vhd-repair.ts';
export {
  type VhdStream,
  type VhdStreamFromBlocksOptions,
  type VhdStreamOptions,
  vhdStream,
  vhdStreamFromBlocks,
} from './vhd-stream.ts';
export { type SizedBlocks, type WriteVhdOptions, type WrittenVhd, writeVhd } from './vhd-write.ts';
