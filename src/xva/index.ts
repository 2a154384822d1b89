export { readMetadataArchive, writeMetadataArchive } from './metadata-archive.ts';
export { type OvaMetadata, type OvaObject, objectsOf, parseOvaXml, writeOvaXml } from './ova-xml.ts';
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
