import { asArray, asStruct, asText, parseXmlRpc, writeXmlRpc, type XmlRpcStruct, type XmlRpcValue } from './xml-rpc.ts';

/** One record of the archive. */
export interface OvaObject {
  /** `VM`, `VBD`, `VDI`, `SR`, `network` … */
  readonly class: string;
  /** `Ref:<n>`: what other records of this archive write where they mean this one. */
  readonly id: string;
  /** The host's record, references replaced by ids of this archive. Fields this library does not know stay as they are. */
  readonly snapshot: XmlRpcStruct;
}

/**
 * The metadata of an archive: `ova.xml`. Source: xapi-project/xen-api `ocaml/xapi/importexport.ml` (`header`,
 * `rpc_of_version`) and `ocaml/xapi/export.ml` (`make_all`).
 */
export interface OvaMetadata {
  /** Product, build, `xapi_major`, `xapi_minor`, `export_vsn`. */
  readonly version: XmlRpcStruct;
  /** Every record, in the order of the archive. */
  readonly objects: readonly OvaObject[];
}

/** Reads the text of an `ova.xml`; `XVA_XML` where it is none. */
export function parseOvaXml(text: string): OvaMetadata {
  const root = asStruct(parseXmlRpc(text), 'ova.xml');
  const objects = asArray(root['objects'], 'ova.xml objects').map((item, index) => {
    const what = `ova.xml object ${index}`;
    const object = asStruct(item, what);
    return {
      class: asText(object['class'], `${what} class`),
      id: asText(object['id'], `${what} id`),
      snapshot: asStruct(object['snapshot'], `${what} snapshot`),
    };
  });
  return { version: asStruct(root['version'], 'ova.xml version'), objects };
}

/** Writes an `ova.xml` as hosts do. */
export function writeOvaXml({ version, objects }: OvaMetadata): string {
  const values: XmlRpcValue[] = objects.map((object) => ({
    class: object.class,
    id: object.id,
    snapshot: object.snapshot,
  }));
  return writeXmlRpc({ version, objects: values });
}

/** The objects of one class. */
export function objectsOf(metadata: OvaMetadata, type: string): OvaObject[] {
  return metadata.objects.filter((object) => object.class === type);
}
