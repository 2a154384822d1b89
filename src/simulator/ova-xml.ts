import { type AnyRecord, fieldsOf, isClassName } from './data-model.ts';
import type { FieldKind, XapiMap, XapiValue } from './field-spec.ts';
import { readXml, type XmlElement } from './xml-reader.ts';
import { escapeXml } from './xml-rpc-text.ts';

/** One record in an archive; references are `Ref:<n>` of an object beside it, or `OpaqueRef:NULL`. */
export interface ArchiveObject {
  readonly class: string;
  /** `Ref:<n>` */
  readonly id: string;
  /** The record's fields. Of an archive that was read, numbers are text: the host writes them without a type. */
  readonly snapshot: AnyRecord;
}

/** What `ova.xml` holds. */
export interface OvaArchive {
  /** Build and version of the host that wrote it; numbers are text. */
  readonly version: Readonly<Record<string, string>>;
  readonly objects: readonly ArchiveObject[];
}

/**
 * The text of `ova.xml` as a host writes it: one XML-RPC value without a prolog, whole numbers without a type.
 *
 * @see xapi-project/xen-api `ocaml/xapi/importexport.ml` `rpc_of_header`; mirage/ocaml-rpc `src/lib/xmlrpc.ml`
 */
export function encodeOva({ version, objects }: OvaArchive): string {
  const items = objects.map(({ class: name, id, snapshot }) => {
    const kinds = isClassName(name) ? fieldsOf(name) : {};
    const fields = Object.entries(snapshot).map(
      ([field, value]) => [field, encodeField(value, kinds[field]?.kind)] as const,
    );
    return encodeStruct([
      ['class', encodeValue(name)],
      ['id', encodeValue(id)],
      ['snapshot', encodeStruct(fields)],
    ]);
  });
  return encodeStruct([
    ['version', encodeStruct(Object.entries(version).map(([name, value]) => [name, encodeValue(value)]))],
    ['objects', `<value><array><data>${items.join('')}</data></array></value>`],
  ]);
}

function encodeField(value: XapiValue, kind: FieldKind | undefined): string {
  if (kind === 'date') return `<value><dateTime.iso8601>${escapeXml(String(value))}</dateTime.iso8601></value>`;
  if (kind === 'float') return `<value><double>${String(value)}</double></value>`;
  return encodeValue(value);
}

function encodeValue(value: XapiValue): string {
  if (typeof value === 'boolean') return `<value><boolean>${value ? 1 : 0}</boolean></value>`;
  if (typeof value !== 'object') return `<value>${escapeXml(String(value))}</value>`;
  if (isList(value)) return `<value><array><data>${value.map(encodeValue).join('')}</data></array></value>`;
  return encodeStruct(Object.entries(value).map(([name, member]) => [name, encodeValue(member)]));
}

function encodeStruct(members: Iterable<readonly [name: string, xml: string]>): string {
  const text = [...members].map(([name, xml]) => `<member><name>${escapeXml(name)}</name>${xml}</member>`);
  return `<value><struct>${text.join('')}</struct></value>`;
}

/**
 * Reads `ova.xml`, also with the types that other writers give their values.
 *
 * @throws SyntaxError for anything that is not such a text
 */
export function decodeOva(text: string): OvaArchive {
  const root = decodeValue(readXml(text));
  const { version, objects } = asMap(root, 'the archive');
  return {
    version: asTexts(version ?? '', 'version'),
    objects: asList(objects ?? '', 'objects').map((item) => {
      const object = asMap(item, 'an object');
      const snapshot = asMap(object['snapshot'] ?? '', 'snapshot');
      return { class: asText(object['class'], 'class'), id: asText(object['id'], 'id'), snapshot };
    }),
  };
}

/** A `<value>` element as a value. */
export function decodeValue({ name, children, text }: XmlElement): XapiValue {
  if (name !== 'value') throw new SyntaxError(`expected <value>, got <${name}>`);
  const [typed, second] = children;
  if (typed === undefined) return text;
  if (second !== undefined || text.trim() !== '') throw new SyntaxError('a <value> holds one thing');
  switch (typed.name) {
    case 'struct':
      return Object.fromEntries(typed.children.map(decodeMember));
    case 'array': {
      const [data, more] = typed.children;
      if (data?.name !== 'data' || more !== undefined) throw new SyntaxError('an <array> holds one <data>');
      return data.children.map(decodeValue);
    }
    case 'boolean':
      if (typed.text !== '0' && typed.text !== '1') throw new SyntaxError(`"${typed.text}" is no <boolean>`);
      return typed.text === '1';
    case 'string':
    case 'int':
    case 'i4':
    case 'i8':
    case 'double':
    case 'dateTime.iso8601':
      return typed.text;
    case 'nil':
      return '';
    default:
      throw new SyntaxError(`<${typed.name}> is no type of XML-RPC`);
  }
}

function decodeMember({ name, children }: XmlElement): [string, XapiValue] {
  const [label, value, more] = children;
  if (name !== 'member' || label?.name !== 'name' || value === undefined || more !== undefined) {
    throw new SyntaxError('a <struct> holds members of <name> and <value>');
  }
  return [label.text, decodeValue(value)];
}

/**
 * The fields that the data model knows, as the types it wants: missing ones get their default, unknown ones are left
 * out, so archives of other releases are read.
 *
 * @throws SyntaxError where a value is of another type than its field
 */
export function typedRecord(className: string, snapshot: AnyRecord): AnyRecord {
  if (!isClassName(className)) return {};
  const entries = Object.entries(fieldsOf(className)).map(([name, { kind, initial }]) => {
    const value = snapshot[name];
    return [name, value === undefined ? initial : typedValue(kind, value, `${className}.${name}`)];
  });
  return Object.fromEntries(entries) as AnyRecord;
}

function typedValue(kind: FieldKind, value: XapiValue, what: string): XapiValue {
  switch (kind) {
    case 'int':
      return asNumber(value, what, Number.isSafeInteger);
    case 'float':
      return asNumber(value, what, Number.isFinite);
    case 'bool':
      if (typeof value !== 'boolean') throw new SyntaxError(`${what} is no boolean`);
      return value;
    case 'ints':
      return asList(value, what).map((item) => asNumber(item, what, Number.isSafeInteger));
    case 'texts':
    case 'refs':
      return asList(value, what).map((item) => asText(item, what));
    case 'map':
      // Operations by task, for example, are read as texts, too.
      return asTexts(value, what);
    default:
      return asText(value, what);
  }
}

function asNumber(value: XapiValue, what: string, fits: (number: number) => boolean): number {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  if (typeof number !== 'number' || !fits(number)) throw new SyntaxError(`${what} is no number: ${String(value)}`);
  return number;
}

function asText(value: XapiValue | undefined, what: string): string {
  if (typeof value !== 'string') throw new SyntaxError(`${what} is no text`);
  return value;
}

function asTexts(value: XapiValue, what: string): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(asMap(value, what)).map(([name, text]) => [name, asText(text, what)]));
}

function asMap(value: XapiValue, what: string): XapiMap {
  if (typeof value !== 'object' || isList(value)) throw new SyntaxError(`${what} is no struct`);
  return value;
}

function asList(value: XapiValue, what: string): readonly XapiValue[] {
  if (typeof value !== 'object' || !isList(value)) throw new SyntaxError(`${what} is no array`);
  return value;
}

function isList(value: XapiValue): value is readonly XapiValue[] {
  return Array.isArray(value);
}
