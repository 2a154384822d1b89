import { isZero, type Xxh64 } from '../bytes/index.ts';
import { FormatError } from '../core/index.ts';
import { ChunkHashing, type ChunkShare } from './chunk-hashing.ts';
import { MAX_CHUNK_SIZE, MAX_EXTENSION_SIZE, MAX_METADATA_SIZE, OVA_XML, type XvaChecksum } from './constants.ts';
import { findingOf, type XvaFinding } from './findings.ts';
import type { Intake } from './intake.ts';
import { type OvaMetadata, parseOvaXml } from './ova-xml.ts';
import { decodeTarHeader, printable, TAR_BLOCK, tarPadding } from './tar-entry.ts';
import { decodeTarExtension, isTarExtension, type TarOverride } from './tar-extension.ts';
import { type XvaDisk, xvaDisks } from './xva-disks.ts';

/** What is done with a chunk's data. `keep`: hashed and handed on. `hash`: hashed as it passes. `skip`: not looked at. */
export type XvaWalkMode = 'keep' | 'hash' | 'skip';

/** Something that was met on the way through an archive. Offsets are those of the uncompressed archive. */
export type XvaEvent =
  | { readonly kind: 'metadata'; readonly metadata: OvaMetadata; readonly disks: readonly XvaDisk[] }
  | {
      readonly kind: 'chunk';
      readonly disk: XvaDisk;
      /** Where its data goes on the disk, in bytes. */
      readonly offset: number;
      readonly length: number;
      /** Where its data lies in the archive, in bytes. */
      readonly dataAt: number;
      readonly checksum: XvaChecksum;
      /** In mode `keep`, in memory of their own. */
      readonly data?: Uint8Array | undefined;
    }
  /** Wrong, but the way goes on: a chunk whose checksum does not match. The chunk's own event follows. */
  | { readonly kind: 'bad'; readonly finding: XvaFinding }
  /** The last disk's data reaches its end; the archive's own end comes after it. */
  | { readonly kind: 'end'; readonly entries: number };

/** What ends a walk: nothing behind it can be trusted. */
export class XvaFault extends Error {
  readonly finding: XvaFinding;

  constructor(finding: XvaFinding, cause?: unknown) {
    super(finding.message, { cause });
    this.finding = finding;
  }
}

type Step<T> = Generator<XvaEvent | undefined, T, void>;

interface Entry {
  readonly name: string;
  readonly size: number;
  /** Of its header. */
  readonly offset: number;
}

const CHUNK_NAME = /^(Ref:[^/]+)\/(\d{8})$/;
/** Longer than any checksum in hexadecimal. */
const LONGEST_CHECKSUM = 64;
const SUFFIXES: Readonly<Record<string, XvaChecksum>> = { '.xxhash': 'xxhash', '.checksum': 'sha1' };

/**
 * Goes through an archive once, in its own order, and holds it to all that hosts demand of one: `ova.xml` first, then
 * the disks in the order of their ids as text, chunks with ascending numbers, each followed by its checksum, every disk to its
 * end, and the two blocks of zeros that end a tar. Yields `undefined` where it needs the next bytes. Source: xen-api
 * `ocaml/xapi/import.ml`, `stream_vdi.ml` (`recv_all_vdi`).
 *
 * @param share - which chunks are hashed, in mode `hash`; the data of the others is passed over.
 * @throws XvaFault, after which the walk is over.
 */
export function* walkXva(intake: Intake, mode: XvaWalkMode, xxh64: Xxh64, share?: ChunkShare): Step<void> {
  const reader = new EntryReader(intake);
  const metadata = yield* readMetadata(reader);
  const disks = within(OVA_XML, 0, () => xvaDisks(metadata));
  yield { kind: 'metadata', metadata, disks };
  const place = new Place(disks);
  const hashing = new ChunkHashing(xxh64, share);
  for (;;) {
    const entry = yield* reader.next();
    if (entry === undefined) break;
    const chunk = place.arrive(entry);
    const dataAt = intake.offset;
    const data = yield* readData(reader, entry, mode, hashing);
    reader.pad(entry);
    const checksum = yield* readChecksum(reader, entry, mode, hashing);
    yield { kind: 'chunk', ...chunk, length: entry.size, dataAt, checksum, data };
  }
  place.finish(intake.offset);
  yield { kind: 'end', entries: reader.count };
  yield* expectEnd(intake);
}

/** Reads the first entry, which must be `ova.xml`, padding included. */
export function* readMetadata(reader: EntryReader): Step<OvaMetadata> {
  const entry = yield* reader.next();
  if (entry?.name !== OVA_XML) {
    throw fault('XVA_UNEXPECTED_ENTRY', entry?.name ?? '', 0, OVA_XML, entry?.name ?? 'the end of the archive');
  }
  if (entry.size > MAX_METADATA_SIZE) {
    throw fault('XVA_METADATA_SIZE', OVA_XML, 0, `at most ${MAX_METADATA_SIZE} bytes`, `${entry.size} bytes`);
  }
  const xml = yield* reader.content(entry);
  const at = reader.intake.offset - xml.byteLength;
  reader.pad(entry);
  return within(OVA_XML, at, () => parseOvaXml(new TextDecoder().decode(xml)));
}

function* readData(
  reader: EntryReader,
  entry: Entry,
  mode: XvaWalkMode,
  hashing: ChunkHashing,
): Step<Uint8Array | undefined> {
  const { intake } = reader;
  if (mode === 'skip' || !hashing.begin()) {
    intake.skip(entry.size);
    return undefined;
  }
  if (mode === 'keep') {
    const data = yield* reader.content(entry);
    hashing.update(data);
    return data;
  }
  for (let left = entry.size; left > 0; ) {
    const piece = yield* intake.some(left);
    if (piece.byteLength === 0) throw truncated(entry.name, intake.offset, `${left} more bytes of its data`);
    hashing.update(piece);
    left -= piece.byteLength;
  }
  return undefined;
}

function* readChecksum(reader: EntryReader, chunk: Entry, mode: XvaWalkMode, hashing: ChunkHashing): Step<XvaChecksum> {
  const entry = yield* reader.next();
  const suffix = entry?.name.startsWith(chunk.name) === true ? entry.name.slice(chunk.name.length) : '';
  const kind = SUFFIXES[suffix];
  if (entry === undefined || kind === undefined) {
    const at = entry?.offset ?? reader.intake.offset;
    throw fault(
      'XVA_CHECKSUM_MISSING',
      chunk.name,
      at,
      'its checksum behind it',
      entry?.name ?? 'the end of the archive',
    );
  }
  if (entry.size > LONGEST_CHECKSUM) {
    throw fault('XVA_CHECKSUM_SIZE', entry.name, entry.offset, `at most ${LONGEST_CHECKSUM} bytes`, entry.size);
  }
  const at = reader.intake.offset;
  const text = printable(Buffer.from(yield* reader.content(entry)).toString('latin1'));
  reader.pad(entry);
  const wrong = mode === 'skip' ? undefined : hashing.verdict(kind, text);
  if (wrong !== undefined) yield { kind: 'bad', finding: findingOf(wrong.code, chunk.name, at, wrong.expected, text) };
  return kind;
}

/** A tar ends with two blocks of zeros; hosts write no more, others fill up with zeros. */
function* expectEnd(intake: Intake): Step<void> {
  const second = new Uint8Array(TAR_BLOCK);
  const length = yield* intake.fill(second);
  if (length < TAR_BLOCK) throw truncated('', intake.offset, 'the second of two blocks of zeros');
  for (
    let piece = second;
    piece.byteLength > 0;
    piece = (yield* intake.some(MAX_CHUNK_SIZE)) as Uint8Array<ArrayBuffer>
  ) {
    if (isZero(piece)) continue;
    // Where it is, not where the piece begins: pieces differ with who reads.
    const at = intake.offset - piece.byteLength + piece.findIndex((byte) => byte !== 0);
    throw fault('XVA_TRAILING_DATA', '', at, 'nothing but zeros to the end', 'more data');
  }
}

/** Reads entry after entry of a tar. */
export class EntryReader {
  readonly intake: Intake;
  /** Entries met so far. */
  count = 0;
  readonly #block = new Uint8Array(TAR_BLOCK);

  constructor(intake: Intake) {
    this.intake = intake;
  }

  /** The next entry's header, extensions applied; `undefined` at the first block of zeros. */
  *next(): Step<Entry | undefined> {
    let override: TarOverride = {};
    for (;;) {
      const { offset } = this.intake;
      const block = yield* this.intake.exactly(TAR_BLOCK, this.#block);
      if (block.byteLength < TAR_BLOCK)
        throw truncated('', this.intake.offset, 'the next entry or the two blocks of zeros');
      const header = within('', 0, () => decodeTarHeader(block, offset));
      if (header === undefined) return undefined;
      const entry: Entry = { name: header.name, size: header.size, offset };
      if (isTarExtension(header.type)) {
        if (header.size > MAX_EXTENSION_SIZE) {
          const limit = `at most ${MAX_EXTENSION_SIZE} bytes`;
          throw fault('XVA_TAR_EXTENSION', printable(header.name), offset, limit, `${header.size} bytes`);
        }
        const content = yield* this.content(entry);
        const at = this.intake.offset - content.byteLength;
        override = { ...override, ...within('', 0, () => decodeTarExtension(header.type, content, at)) };
        this.pad(entry);
        continue;
      }
      this.count++;
      const name = printable(override.name ?? header.name);
      if (header.type !== '0') {
        throw fault(
          'XVA_UNEXPECTED_ENTRY',
          name,
          offset,
          'a regular file',
          `an entry of type ${printable(header.type)}`,
        );
      }
      return { name, size: override.size ?? header.size, offset };
    }
  }

  /** An entry's content, in memory of its own; its size was checked. */
  *content({ name, size }: Entry): Step<Uint8Array> {
    if (size > MAX_CHUNK_SIZE)
      throw fault('XVA_CHUNK_SIZE', name, this.intake.offset, `at most ${MAX_CHUNK_SIZE} bytes`, size);
    const bytes = new Uint8Array(size);
    const length = yield* this.intake.fill(bytes);
    if (length < size) throw truncated(name, this.intake.offset, `${size - length} more bytes of its data`);
    return bytes;
  }

  pad({ size }: Entry): void {
    this.intake.skip(tarPadding(size));
  }
}

/** Where in which disk the walk is: the rule by which hosts read chunk numbers. */
class Place {
  readonly #disks: readonly XvaDisk[];
  #index = -1;
  #last = -1;
  #offset = 0;
  /** The length of the archive's first chunk, by which all numbers are counted. */
  #unit: number | undefined;

  constructor(disks: readonly XvaDisk[]) {
    this.#disks = disks;
  }

  /** The disk and offset of a chunk that arrives; moves on behind it. */
  arrive({ name, size, offset: at }: Entry): { readonly disk: XvaDisk; readonly offset: number } {
    const [, id = '', digits = ''] = CHUNK_NAME.exec(name) ?? [];
    if (id === '') throw fault('XVA_UNEXPECTED_ENTRY', name, at, 'a chunk, Ref:<n>/<8 digits>', name);
    if (size > MAX_CHUNK_SIZE)
      throw fault('XVA_CHUNK_SIZE', name, at, `at most ${MAX_CHUNK_SIZE} bytes`, `${size} bytes`);
    if (id !== this.#disks[this.#index]?.id) this.#enter(id, name, at);
    const disk = this.#disks[this.#index]!;
    const number = Number(digits);
    if (number <= this.#last) throw fault('XVA_CHUNK_ORDER', name, at, `a number above ${this.#last}`, number);
    this.#unit ??= size;
    const offset = this.#offset + (number - this.#last - 1) * this.#unit;
    if (offset + size > disk.size || this.#offset >= disk.size) {
      throw fault(
        'XVA_CHUNK_BEYOND',
        name,
        at,
        `data within the ${disk.size} bytes of the disk`,
        `${size} bytes at ${offset}`,
      );
    }
    this.#last = number;
    this.#offset = offset + size;
    return { disk, offset };
  }

  /** The archive ends: is every disk there? */
  finish(at: number): void {
    this.#assertComplete(at);
    const missing = this.#disks[this.#index + 1];
    if (missing !== undefined)
      throw fault('XVA_DISK_MISSING', '', at, `data of ${missing.id}`, 'the end of the archive');
  }

  #enter(id: string, name: string, at: number): void {
    this.#assertComplete(at);
    const next = this.#disks[this.#index + 1];
    if (next?.id !== id) {
      throw fault('XVA_DISK_ORDER', name, at, next === undefined ? 'the end of the archive' : `data of ${next.id}`, id);
    }
    this.#index++;
    this.#last = -1;
    this.#offset = 0;
  }

  #assertComplete(at: number): void {
    const disk = this.#disks[this.#index];
    if (disk === undefined || this.#offset >= disk.size) return;
    throw fault('XVA_DISK_INCOMPLETE', disk.id, at, `data up to its end at ${disk.size}`, `data up to ${this.#offset}`);
  }
}

function truncated(entry: string, offset: number, expected: string): XvaFault {
  return fault('XVA_TRUNCATED', entry, offset, expected, 'the end');
}

function fault(code: `XVA_${string}`, entry: string, offset: number, expected: unknown, actual: unknown): XvaFault {
  return new XvaFault(findingOf(code, entry, offset, expected, actual));
}

/** What a decoder says, as the fault of an entry. */
function within<T>(entry: string, base: number, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const { what, offset, expected, actual } = error.at;
    throw new XvaFault(
      findingOf(error.code as `XVA_${string}`, entry, base + offset, `${what}: ${String(expected)}`, actual),
      error,
    );
  }
}
