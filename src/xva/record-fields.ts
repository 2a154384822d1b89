import type { OvaObject } from './ova-xml.ts';
import type { XmlRpcStruct } from './xml-rpc.ts';

/** A field of a record that is text; empty where the record has none, as the host's defaults are. */
export function textOf({ snapshot }: OvaObject, field: string): string {
  const value = snapshot[field];
  return typeof value === 'string' ? value : '';
}

/** A field that is a whole number, not negative: hosts write them as text. `undefined` for anything else. */
export function numberOf({ snapshot }: OvaObject, field: string): number | undefined {
  const value = snapshot[field];
  if (typeof value !== 'string' || !/^\d+$/.test(value)) return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : undefined;
}

/** Is a field set to true? */
export function isTrue({ snapshot }: OvaObject, field: string): boolean {
  return snapshot[field] === true;
}

/** A field that maps text to text; empty where the record has none. */
export function mapOf({ snapshot }: OvaObject, field: string): Readonly<Record<string, string>> {
  const value = snapshot[field];
  const members = isMap(value) ? Object.entries(value) : [];
  return Object.fromEntries(members.filter((member): member is [string, string] => typeof member[1] === 'string'));
}

function isMap(value: unknown): value is XmlRpcStruct {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
