import { FormatError } from '../core/index.ts';

/** Tar's unit, in bytes. */
export const TAR_BLOCK = 512;

/** One entry's header, as far as archives of hosts use it. */
export interface TarEntry {
  readonly name: string;
  /** In bytes, without the padding that follows. */
  readonly size: number;
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
 * `XVA_TAR_CHECKSUM`, a size that is no octal number `XVA_TAR_SIZE`.
 */
export function decodeTarHeader(block: Uint8Array, offset: number): TarEntry | undefined {
  const header = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  if (header.byteLength !== TAR_BLOCK) throw new RangeError(`tar: a header is ${TAR_BLOCK} bytes`);
  if (header.every((byte) => byte === 0)) return undefined;
  const stored = readOctal(header, 148, 8);
  const actual = checksumOf(header);
  if (stored !== actual) {
    throw new FormatError('XVA_TAR_CHECKSUM', {
      what: 'tar header checksum',
      offset,
      expected: actual,
      actual: stored,
    });
  }
  const size = readOctal(header, 124, 12);
  if (size === undefined) {
    throw new FormatError('XVA_TAR_SIZE', {
      what: 'tar entry size',
      offset: offset + 124,
      expected: 'an octal number',
      actual: header.toString('latin1', 124, 136),
    });
  }
  const prefix = header.toString('latin1', 257, 262) === 'ustar' ? textAt(header, 345, 155) : '';
  const name = textAt(header, 0, 100);
  return { name: prefix === '' ? name : `${prefix}/${name}`, size };
}

/** How many bytes of padding follow `size` bytes of content. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/** The sum of all bytes, the checksum's own field taken as spaces. */
function checksumOf(header: Buffer): number {
  let sum = 0;
  for (let at = 0; at < TAR_BLOCK; at++) sum += at >= 148 && at < 156 ? 0x20 : header[at]!;
  return sum;
}

function writeOctal(header: Buffer, at: number, width: number, value: number): void {
  header.write(value.toString(8).padStart(width - 1, '0'), at, 'latin1');
  header[at + width - 1] = 0;
}

function readOctal(header: Buffer, at: number, width: number): number | undefined {
  const text = header
    .toString('latin1', at, at + width)
    .replace(/[\0 ].*$/s, (tail, start) => (start === 0 ? tail.trimStart() : ''))
    .replace(/[\0 ]/g, '');
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

function textAt(header: Buffer, at: number, width: number): string {
  const end = header.indexOf(0, at);
  return header.toString('utf8', at, end < 0 || end > at + width ? at + width : end);
}
