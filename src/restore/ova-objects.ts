import { isOurKey } from '../snapshot/index.ts';
import type { OvaMetadata, OvaObject, XmlRpcStruct, XmlRpcValue } from '../xva/index.ts';

/**
 * New ids for all objects, of equal width and none that `taken` has. Hosts find a disk's chunks by the beginning of their
 * names: ids of more digits than the others', all of equal width, begin none of them.
 */
export function withOtherIds(metadata: OvaMetadata, taken: OvaMetadata = metadata): OvaMetadata {
  const numbers = taken.objects.map(({ id }) => Number(/^Ref:(\d+)$/.exec(id)?.[1] ?? 0));
  let next = 10 ** String(Math.max(0, ...numbers)).length;
  const ids = new Map(metadata.objects.map(({ id }) => [id, `Ref:${next++}`]));
  const rename = (value: XmlRpcValue): XmlRpcValue => {
    if (typeof value === 'string') return ids.get(value) ?? value;
    if (Array.isArray(value)) return value.map(rename);
    if (!isStruct(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, rename(member)]));
  };
  const objects = metadata.objects.map((object) => ({
    ...object,
    id: ids.get(object.id)!,
    snapshot: rename(object.snapshot) as XmlRpcStruct,
  }));
  return { ...metadata, objects };
}

function isStruct(value: XmlRpcValue): value is XmlRpcStruct {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** Without our keys in its `other_config`. */
export function withoutMarks(object: OvaObject): OvaObject {
  const config = object.snapshot['other_config'];
  if (config === undefined || !isStruct(config)) return object;
  const kept = Object.fromEntries(Object.entries(config).filter(([key]) => !isOurKey(key)));
  return withFields(object, { other_config: kept });
}

export function withFields(object: OvaObject, fields: XmlRpcStruct): OvaObject {
  return { ...object, snapshot: { ...object.snapshot, ...fields } };
}
