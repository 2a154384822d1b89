import { parseXml, XmlCdata, XmlElement, XmlText } from '@rgrove/parse-xml';
import { FormatError } from '../core/index.ts';

/** A moment as the host writes it, `20261122T18:05:12Z`: kept as text, since nobody here calculates with it. */
export class XmlRpcDateTime {
  /** As the host wrote it. */
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** Members by name. */
export interface XmlRpcStruct {
  [member: string]: XmlRpcValue;
}

/**
 * A value in the XML-RPC dialect that hosts write into `ova.xml` and `task.result`. Integers are untyped there and so
 * are strings here; a number is a `<double>`; `null` is `<nil/>`. Source: mirage/ocaml-rpc `src/lib/xmlrpc.ml`.
 */
export type XmlRpcValue = string | boolean | number | null | XmlRpcDateTime | XmlRpcValue[] | XmlRpcStruct;

/** Deeper nesting than any record of a host has. */
const MAX_DEPTH = 32;

/** Reads one `<value>`. Anything else, and XML that is not well formed, is `XVA_XML`. */
export function parseXmlRpc(text: string, what = 'ova.xml'): XmlRpcValue {
  let root: XmlElement | null;
  try {
    root = parseXml(text).root;
  } catch (cause) {
    const at = cause instanceof Error && 'pos' in cause && typeof cause.pos === 'number' ? cause.pos : 0;
    throw new FormatError(
      'XVA_XML',
      { what, offset: at, expected: 'well-formed XML', actual: String(cause) },
      { cause },
    );
  }
  if (root?.name !== 'value') throw unexpected(what, root, '<value>');
  return readValue(root, what, 0);
}

/** Writes one `<value>` as hosts do: no prolog, integers untyped, control characters left out. */
export function writeXmlRpc(value: XmlRpcValue): string {
  const parts: string[] = [];
  writeValue(value, parts);
  return parts.join('');
}

/** The struct behind a value; `XVA_XML` where it is none. */
export function asStruct(value: XmlRpcValue | undefined, what: string): XmlRpcStruct {
  if (isStruct(value)) return value;
  throw new FormatError('XVA_XML', { what, offset: 0, expected: 'a struct', actual: kindOf(value) });
}

/** The array behind a value; `XVA_XML` where it is none. */
export function asArray(value: XmlRpcValue | undefined, what: string): XmlRpcValue[] {
  if (Array.isArray(value)) return value;
  throw new FormatError('XVA_XML', { what, offset: 0, expected: 'an array', actual: kindOf(value) });
}

/** The text behind a value; `XVA_XML` where it is none. */
export function asText(value: XmlRpcValue | undefined, what: string): string {
  if (typeof value === 'string') return value;
  throw new FormatError('XVA_XML', { what, offset: 0, expected: 'a string', actual: kindOf(value) });
}

function isStruct(value: XmlRpcValue | undefined): value is XmlRpcStruct {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof XmlRpcDateTime);
}

function kindOf(value: XmlRpcValue | undefined): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'nil';
  if (Array.isArray(value)) return 'an array';
  return isStruct(value) ? 'a struct' : typeof value;
}

function readValue(element: XmlElement, what: string, depth: number): XmlRpcValue {
  if (depth > MAX_DEPTH) throw unexpected(what, element, `at most ${MAX_DEPTH} levels`);
  const typed = elementsOf(element);
  if (typed.length === 0) return textOf(element);
  const [type] = typed;
  if (type === undefined || typed.length > 1) throw unexpected(what, element, 'one value');
  switch (type.name) {
    case 'string':
    case 'i4':
    case 'int':
      return textOf(type);
    case 'boolean':
      return textOf(type).trim() === '1';
    case 'double':
      return Number(textOf(type));
    case 'dateTime.iso8601':
      return new XmlRpcDateTime(textOf(type));
    case 'nil':
      return null;
    case 'struct':
      return readStruct(type, what, depth);
    case 'array':
      return readArray(type, what, depth);
    default:
      throw unexpected(what, type, 'a known type');
  }
}

function readStruct(element: XmlElement, what: string, depth: number): XmlRpcStruct {
  const members: [string, XmlRpcValue][] = [];
  for (const member of elementsOf(element)) {
    const [name, value] = elementsOf(member);
    if (member.name !== 'member' || name?.name !== 'name' || value?.name !== 'value') {
      throw unexpected(what, member, '<member><name/><value/></member>');
    }
    members.push([textOf(name), readValue(value, what, depth + 1)]);
  }
  return Object.fromEntries(members); // `fromEntries` defines own members: a name like __proto__ does no harm
}

function readArray(element: XmlElement, what: string, depth: number): XmlRpcValue[] {
  const [data] = elementsOf(element);
  if (data?.name !== 'data') throw unexpected(what, element, '<array><data/></array>');
  return elementsOf(data).map((item) => {
    if (item.name !== 'value') throw unexpected(what, item, '<value>');
    return readValue(item, what, depth + 1);
  });
}

function elementsOf(element: XmlElement): XmlElement[] {
  return element.children.filter((child) => child instanceof XmlElement);
}

function textOf(element: XmlElement): string {
  return element.children
    .map((child) => (child instanceof XmlText || child instanceof XmlCdata ? child.text : ''))
    .join('');
}

function unexpected(what: string, element: XmlElement | null, expected: string): FormatError {
  const actual = element === null ? 'nothing' : `<${element.name}>`;
  return new FormatError('XVA_XML', { what, offset: Math.max(element?.start ?? 0, 0), expected, actual });
}

function writeValue(value: XmlRpcValue, parts: string[]): void {
  if (value === null) parts.push('<value><nil/></value>');
  else if (typeof value === 'string') parts.push('<value>', escapeText(value), '</value>');
  else if (typeof value === 'boolean') parts.push(`<value><boolean>${value ? 1 : 0}</boolean></value>`);
  else if (typeof value === 'number') parts.push(`<value><double>${value}</double></value>`);
  else if (value instanceof XmlRpcDateTime) {
    parts.push('<value><dateTime.iso8601>', escapeText(value.text), '</dateTime.iso8601></value>');
  } else if (Array.isArray(value)) {
    parts.push('<value><array><data>');
    for (const item of value) writeValue(item, parts);
    parts.push('</data></array></value>');
  } else {
    parts.push('<value><struct>');
    for (const [name, member] of Object.entries(value)) {
      parts.push('<member><name>', escapeText(name), '</name>');
      writeValue(member, parts);
      parts.push('</member>');
    }
    parts.push('</struct></value>');
  }
}

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '\r': '&#13;' };

function escapeText(text: string): string {
  // XML 1.0 has no way to write other control characters; hosts drop them, too (mirage/ocaml-rpc `xmlrpc.ml`)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, '').replace(/[&<>\r]/g, (found) => ESCAPES[found]!);
}
