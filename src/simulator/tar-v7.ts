import type { ByteReader } from '../bytes/index.ts';
import { isZero } from '../bytes/index.ts';

/** The unit of a tar archive, in bytes. */
export const TAR_BLOCK = 512;
/** What ends an archive: two blocks of zeros; hosts add no padding to 10 KiB. */
export const TAR_END = new Uint8Array(2 * TAR_BLOCK);

const CHECKSUM_AT = 148;
const CHECKSUM_SIZE = 8;
const MAX_EXTENSION = 64 * 1024; // the longest extended header that is read, in bytes

/** What the header in front of a file says. */
export interface TarEntry {
  readonly name: string;
  /** In bytes, the padding to a block not counted. */
  readonly size: number;
}

/**
 * A header as hosts write it: version 7, without the `ustar` magic, type NUL, mode 0400, owner 0.
 *
 * @see mirage/ocaml-tar 2.x `lib/tar.ml` `marshal`
 */
export function encodeTarHeader({ name, size }: TarEntry, modifiedSeconds = 0): Uint8Array {
  const bytes = new Uint8Array(TAR_BLOCK);
  const put = (at: number, text: string) => bytes.set(Buffer.from(text, 'latin1'), at);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  if (Buffer.byteLength(name) > 100 || size >= 8 ** 11)
    throw new RangeError(`"${name}" (${size} bytes) is no V7 entry`);
  put(0, name);
  put(100, octal(0o400, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(size, 11));
  put(136, octal(modifiedSeconds, 11));
  put(CHECKSUM_AT, `${checksum(bytes).toString(8).padStart(6, '0')}\0 `);
  return bytes;
}

/** How many zeros follow a file of `size` bytes. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/**
 * Reads the header of the next file; `undefined` at the end of the archive. Takes V7, ustar, PAX and GNU headers, as a
 * host does.
 *
 * @throws SyntaxError for what is no header
 */
export async function readTarHeader(input: ByteReader): Promise<TarEntry | undefined> {
  let longName: string | undefined;
  for (;;) {
    const bytes = await input.read(TAR_BLOCK, 'tar header');
    if (isZero(bytes)) return undefined;
    const entry = decodeTarHeader(bytes);
    const type = String.fromCharCode(bytes[156] ?? 0);
    if (type === '\0' || type === '0') return { name: longName ?? entry.name, size: entry.size };
    if (!'xgL'.includes(type)) throw new SyntaxError(`a tar entry of type "${type}" where a file is expected`);
    if (entry.size > MAX_EXTENSION) throw new SyntaxError(`an extended tar header of ${entry.size} bytes`);
    const text = Buffer.from(await input.read(entry.size, 'extended tar header')).toString('utf8');
    await input.skip(tarPadding(entry.size));
    if (type === 'L') longName = text.replace(/\0.*$/s, '');
    else if (type === 'x') longName = /(?:^|\n)\d+ path=([^\n]*)\n/.exec(text)?.[1] ?? longName;
  }
}

/** One header; `SyntaxError` unless its checksum is right. */
export function decodeTarHeader(bytes: Uint8Array): TarEntry {
  const field = (at: number, length: number) =>
    Buffer.from(bytes.subarray(at, at + length))
      .toString('latin1')
      .replace(/\0.*$/s, '')
      .trim();
  const sum = Number.parseInt(field(CHECKSUM_AT, CHECKSUM_SIZE), 8);
  if (sum !== checksum(bytes)) throw new SyntaxError('the checksum of a tar header is wrong');
  const size = field(124, 12);
  if (!/^[0-7]+$/.test(size)) throw new SyntaxError(`"${size}" is no size in a tar header`);
  const prefix = field(257, 5) === 'ustar' && bytes[262] === 0 ? field(345, 155) : '';
  return { name: prefix === '' ? field(0, 100) : `${prefix}/${field(0, 100)}`, size: Number.parseInt(size, 8) };
}

/** The sum of all bytes, those of the checksum counted as spaces. */
function checksum(bytes: Uint8Array): number {
  let sum = CHECKSUM_SIZE * 0x20;
  bytes.forEach((byte, at) => {
    if (at < CHECKSUM_AT || at >= CHECKSUM_AT + CHECKSUM_SIZE) sum += byte;
  });
  return sum;
}
