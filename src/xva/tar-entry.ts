import { isZero } from '../bytes/index.ts';
import { FormatError } from '../core/index.ts';

/** Tar's unit, in bytes. */
export const TAR_BLOCK = 512;

/** One entry's header, as far as archives of hosts use it. */
export interface TarEntry {
  readonly name: string;
  /** In bytes, without the padding that follows. */
  readonly size: number;
}

/** A header that was read. */
export interface TarHeader extends TarEntry {
  /** One character; `0` for a regular file, in whichever way it was written. */
  readonly type: string;
}

/**
 * A V7 header as hosts write it: no `ustar` magic, type NUL, mode 0400, owner 0, octal numbers ended by NUL. Source:
 * mirage/ocaml-tar `lib/tar.ml` (`Header.make`, `marshal`).
 */
export function encodeTarHeader({ name, size }: TarEntry, modifiedSeconds = 0): Uint8Array {
  const header = Buffer.alloc(TAR_BLOCK);
  if (Buffer.byteLength(name) > 99) throw new RangeError(`tar: the name ${name} is longer than 99 bytes`);
  header.write(name, 0);
  writeOctal(header, 100, 8, 0o400);
  writeOctal(header, 108, 8, 0);
  writeOctal(header, 116, 8, 0);
  writeOctal(header, 124, 12, size);
  writeOctal(header, 136, 12, modifiedSeconds);
  header.fill(' ', 148, 156);
  writeOctal(header, 148, 7, checksumOf(header)); // six digits and NUL, then a space: what every reader takes
  return header;
}

/**
 * Reads one header block: V7, ustar or GNU. `undefined` for a block of zeros, the archive's end. A wrong checksum is
 * `XVA_TAR_CHECKSUM`, a size that is no number `XVA_TAR_SIZE`.
 */
export function decodeTarHeader(block: Uint8Array, offset: number): TarHeader | undefined {
  if (block.byteLength !== TAR_BLOCK) throw new RangeError(`tar: a header is ${TAR_BLOCK} bytes`);
  if (isZero(block)) return undefined;
  const header = Buffer.from(block.buffer, block.byteOffset, TAR_BLOCK);
  const stored = readOctal(header, 148, 8);
  const actual = checksumOf(header);
  if (stored !== actual) {
    throw new FormatError('XVA_TAR_CHECKSUM', {
      what: 'tar header checksum',
      offset,
      expected: actual,
      actual: stored ?? 'no number',
    });
  }
  const size = readNumber(header, 124, 12);
  if (size === undefined) {
    throw new FormatError('XVA_TAR_SIZE', {
      what: 'tar entry size',
      offset: offset + 124,
      expected: 'an octal number',
      actual: printable(header.toString('latin1', 124, 136)),
    });
  }
  const prefix = header.toString('latin1', 257, 263) === 'ustar\0' ? textAt(header, 345, 155) : '';
  const name = textAt(header, 0, 100);
  return { name: prefix === '' ? name : `${prefix}/${name}`, size, type: typeAt(header) };
}

/** How many bytes of padding follow `size` bytes of content. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/** Text from outside, fit for a message. */
export function printable(text: string): string {
  const clean = text.replace(/[^\x20-\x7e\u00a1-\ud7ff]/g, '?');
  return clean.length > 120 ? `${clean.slice(0, 117)}...` : clean;
}

/** The sum of all bytes, the checksum's own field taken as spaces. */
function checksumOf(header: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let at = 0; at < 148; at++) sum += header[at]!;
  for (let at = 156; at < TAR_BLOCK; at++) sum += header[at]!;
  return sum;
}

/** V7 writes NUL for a regular file, ustar `0`, some `7`: a contiguous one. */
function typeAt(header: Uint8Array): string {
  const type = header[156]!;
  return type === 0 || type === 0x37 ? '0' : String.fromCharCode(type);
}

function writeOctal(header: Buffer, at: number, width: number, value: number): void {
  header.write(value.toString(8).padStart(width - 1, '0'), at, 'latin1');
  header[at + width - 1] = 0;
}

/** Octal digits, or GNU's binary form of what needs more of them: its first byte is then 0x80. */
function readNumber(header: Uint8Array, at: number, width: number): number | undefined {
  if (header[at] !== 0x80) return readOctal(header, at, width);
  let value = 0;
  for (let i = at + 1; i < at + width; i++) value = value * 256 + header[i]!;
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Octal digits, spaces before them, a NUL or space after them. */
function readOctal(header: Uint8Array, at: number, width: number): number | undefined {
  const end = at + width;
  let i = at;
  while (i < end && header[i] === 0x20) i++;
  const start = i;
  let value = 0;
  for (; i < end; i++) {
    const digit = header[i]! - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  if (i === start) return undefined;
  return i === end || header[i] === 0 || header[i] === 0x20 ? value : undefined;
}

function textAt(header: Buffer, at: number, width: number): string {
  const end = header.indexOf(0, at);
  return header.toString('utf8', at, end < 0 || end > at + width ? at + width : end);
}
