import { type ByteSource, readBytes } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { NIL_UUID, roundUpToSector } from './constants.ts';
import { NO_LOCATOR, type ParentLocator, type VhdHeader } from './header.ts';

/** The longest locator text that is read, in bytes. */
export const LONGEST_LOCATOR = 4096;

/** How a differencing VHD names its parent. Only `uuid` is the link; the names say where to look. */
export interface VhdParent {
  /** The UUID in the parent's footer. All zeros: the parent is a raw file (XenServer). */
  readonly uuid: string;
  /** The header's parent name: a base name, a relative path or a path on the host that wrote it. */
  readonly name: string;
  /** When the parent was last written to, in seconds since 2000-01-01T00:00:00Z; many writers leave 0. */
  readonly timestamp: number;
  /** All that the name and the locators say, as they say it, without repetitions. Not to be trusted. */
  readonly paths: readonly string[];
}

/** The link that a writer puts into a differencing VHD. */
export interface ParentLink {
  /** The UUID in the parent's footer. */
  readonly uuid: string;
  /** The parent's file name, without a folder: parent and child are siblings. */
  readonly name: string;
  /**
   * When the parent was last written to.
   * @defaultValue 2000-01-01T00:00:00Z, stored as 0
   */
  readonly timestamp?: Date | undefined;
}

type Encoding = 'utf16le' | 'utf8';
const ENCODINGS: Readonly<Record<string, Encoding>> = { W2ru: 'utf16le', W2ku: 'utf16le', MacX: 'utf8' };
/** Locator codes that tools know; blktap and XAPI refuse a header with any other. */
export const KNOWN_LOCATORS: ReadonlySet<string> = new Set([
  NO_LOCATOR,
  'W2ru',
  'W2ku',
  'MacX',
  'Mac ',
  'Wi2r',
  'Wi2k',
]);

/** Does this locator's text lie within a file of `size` bytes, and is it short enough to be read? */
export function liesWithin({ dataLength, dataOffset }: ParentLocator, size: number): boolean {
  return dataLength <= LONGEST_LOCATOR && dataOffset + BigInt(dataLength) <= BigInt(size);
}

/** Where the last of the texts ends that can be believed, rounded up to whole sectors; 0 without any. */
export function locatorsEnd({ locators }: VhdHeader): number {
  const ends = locators
    .filter(({ code, dataLength }) => code !== NO_LOCATOR && dataLength > 0)
    .filter((locator) => liesWithin(locator, Number.MAX_SAFE_INTEGER))
    .map(({ dataOffset, dataLength }) => roundUpToSector(Number(dataOffset) + dataLength));
  return Math.max(0, ...ends);
}

/** Reads all that a differencing VHD says about its parent. Locators that cannot be read are left out. */
export async function readParent(source: ByteSource, header: VhdHeader, options?: CallOptions): Promise<VhdParent> {
  const paths = [header.parentName];
  for (const locator of header.locators) {
    const encoding = ENCODINGS[locator.code];
    if (encoding === undefined || !liesWithin(locator, source.size)) continue;
    const bytes = await readBytes(source, Number(locator.dataOffset), locator.dataLength, options);
    paths.push(Buffer.from(bytes.buffer).toString(encoding).replace(/\0+$/, ''));
  }
  return {
    uuid: header.parentUuid,
    name: header.parentName,
    timestamp: header.parentTimestamp,
    paths: [...new Set(paths)].filter((path) => path !== ''),
  };
}

/** Is the parent a raw file? */
export function isRawParent(parent: { readonly uuid: string }): boolean {
  return parent.uuid === NIL_UUID;
}

/** Locators and the bytes they point to. */
export interface PlannedLocators {
  readonly locators: readonly ParentLocator[];
  /** The texts, each padded to whole sectors, to be put at the offset that was asked for. */
  readonly bytes: Uint8Array;
}

/**
 * Three locators that all name the sibling `name`, so that every tool finds it and none leaves the folder. Their texts
 * are to lie at `offset`. The room of each is told in bytes, as Windows does and as blktap writes it.
 *
 * @throws RangeError where `name` is no plain file name or does not fit.
 */
export function planLocators(name: string, offset: number): PlannedLocators {
  assertSiblingName(name);
  const texts = [
    ['W2ru', `.\\${name}`],
    ['W2ku', `.\\${name}`], // blktap, too, writes the relative path here
    ['MacX', `file://./${name}`],
  ] as const;
  const pieces = texts.map(([code, text]) => ({ code, text: Buffer.from(text, ENCODINGS[code]) }));
  const bytes = new Uint8Array(pieces.reduce((sum, { text }) => sum + roundUpToSector(text.byteLength), 0));
  let at = 0;
  const locators = pieces.map(({ code, text }) => {
    bytes.set(text, at);
    const dataSpace = roundUpToSector(text.byteLength);
    const locator = { code, dataSpace, dataLength: text.byteLength, dataOffset: BigInt(offset + at) };
    at += dataSpace;
    return locator;
  });
  return { locators, bytes };
}

/** Bytes that {@link planLocators} needs for the texts. */
export function locatorsSize(name: string): number {
  return planLocators(name, 0).bytes.byteLength;
}

function assertSiblingName(name: string): void {
  if (name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name) || /^[a-z]:/i.test(name)) {
    throw new RangeError(`"${name}" is not the plain name of a file in the same folder`);
  }
  if (name.length > 256) throw new RangeError(`a parent name of ${name.length} UTF-16 units does not fit, at most 256`);
}
