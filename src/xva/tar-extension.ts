import { FormatError } from '../core/index.ts';

/** What an extension says about the entry that follows it. */
export interface TarOverride {
  readonly name?: string | undefined;
  readonly size?: number | undefined;
}

/** Types of headers whose content is about the next one, or about all: PAX `x` and `g`, GNU's long names `L` and `K`. */
export function isTarExtension(type: string): boolean {
  return type === 'x' || type === 'g' || type === 'L' || type === 'K';
}

/** Reads the content of an extension. What is wrong with it is `XVA_TAR_EXTENSION`. */
export function decodeTarExtension(type: string, content: Uint8Array, offset: number): TarOverride {
  if (type === 'L') return { name: Buffer.from(content).toString('utf8').replace(/\0.*$/s, '') };
  return type === 'x' ? decodePax(Buffer.from(content), offset) : {};
}

/** Records of the form `<length> <key>=<value>\n`, the length counting all of it. Source: POSIX.1-2001 `pax`. */
function decodePax(content: Buffer, offset: number): TarOverride {
  const override: { name?: string; size?: number } = {};
  for (let at = 0; at < content.byteLength; ) {
    const space = content.indexOf(0x20, at);
    const digits = content.toString('latin1', at, Math.min(space < 0 ? at : space, at + 8));
    const length = /^[1-9]\d*$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = content.indexOf(0x3d, space);
    const whole =
      length > 0 && end <= content.byteLength && content[end - 1] === 0x0a && equals > space && equals < end;
    if (!whole) throw wrong(offset + at, 'a PAX record', 'something else');
    const key = content.toString('utf8', space + 1, equals);
    const value = content.toString('utf8', equals + 1, end - 1);
    if (key === 'path') override.name = value;
    if (key === 'size') override.size = sizeOf(value, offset + at);
    at = end;
  }
  return override;
}

function sizeOf(value: string, offset: number): number {
  const size = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw wrong(offset, 'a number of bytes', value.slice(0, 40));
  return size;
}

function wrong(offset: number, expected: string, actual: string): FormatError {
  return new FormatError('XVA_TAR_EXTENSION', { what: 'tar extension', offset, expected, actual });
}
