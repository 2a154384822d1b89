/**
 * XVA archives of whole VMs: read, write, check, and rewrite in passing.
 *
 * @module xen-backup-sdk/xva
 */

export { XVA_CHUNK_SIZE, type XvaChecksum, type XvaCompression } from './constants.ts';
export { type ArchiveBytes, peekCompression as peekXvaCompression } from './decompress.ts';
export { editXvaVm, type XvaVmEdits } from './edit-metadata.ts';
export type { XvaFinding } from './findings.ts';
export { readMetadataArchive, writeMetadataArchive } from './metadata-archive.ts';
export { type OvaMetadata, type OvaObject, objectsOf, parseOvaXml, writeOvaXml } from './ova-xml.ts';
export { type RewriteXvaOptions, type RewrittenXva, rewriteXvaMetadata } from './rewrite-metadata.ts';
export { type XvaDrive, type XvaNic, type XvaSr, type XvaVdi, type XvaVm, xvaVm } from './vm-metadata.ts';
export {
  asArray,
  asStruct,
  asText,
  parseXmlRpc,
  writeXmlRpc,
  XmlRpcDateTime,
  type XmlRpcStruct,
  type XmlRpcValue,
} from './xml-rpc.ts';
export { type CheckingXva, type CheckXvaOptions, checkingXva, checkXva } from './xva-check.ts';
export { type XvaDisk, type XvaHead, xvaDisks } from './xva-disks.ts';
export type { XvaContents } from './xva-plan.ts';
export {
  type ReadXvaStreamOptions,
  readXvaStream,
  type XvaDiskContents,
  type XvaStream,
} from './xva-read-stream.ts';
export { type OpenXvaOptions, openXva, type XvaImage, type XvaImageDisk } from './xva-reader.ts';
export type { XvaDiskReport, XvaReport } from './xva-report.ts';
export { type XvaOutput, type XvaStreamOptions, xvaStream } from './xva-stream.ts';
