import type { Field } from '../bytes/index.ts';
import { FormatError, type FormatErrorCode } from '../core/index.ts';

/** 16 bytes in the order they print: a VHD does not swap a UUID's bytes. */
export const uuid: Field<string> = {
  size: 16,
  read(view, at) {
    const hex = Buffer.from(view.buffer, view.byteOffset + at, 16).toString('hex');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  },
  write(view, at, value) {
    Buffer.from(view.buffer, view.byteOffset + at, 16).write(assertUuid(value).replaceAll('-', ''), 'hex');
  },
};

/** Throws a `RangeError` unless `value` is a UUID in its usual form. */
export function assertUuid(value: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)) return value;
  throw new RangeError(`"${value}" is not a UUID`);
}

/** A 64-bit size or offset as a number; more than 2^53 - 1 is refused with `code`. */
export function size64As(code: FormatErrorCode, what: string): Field<number> {
  return {
    size: 8,
    read(view, at, base) {
      const value = view.getBigUint64(at);
      if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
      throw new FormatError(code, {
        what,
        offset: base + at,
        expected: `at most ${Number.MAX_SAFE_INTEGER}`,
        actual: `${value}`, // findings are plain data, and JSON knows no bigint
      });
    },
    write: (view, at, value) => view.setBigUint64(at, BigInt(value)),
  };
}

/** UTF-16, big-endian, ended by a NUL or by the end of the field. */
export function utf16be(size: number): Field<string> {
  return {
    size,
    read(view, at) {
      const units: number[] = [];
      for (let i = 0; i < size; i += 2) {
        const unit = view.getUint16(at + i);
        if (unit === 0) break;
        units.push(unit);
      }
      return String.fromCharCode(...units);
    },
    write(view, at, value) {
      if (value.length * 2 > size) throw new RangeError(`"${value}" is longer than ${size / 2} UTF-16 units`);
      for (let i = 0; i < value.length; i++) view.setUint16(at + i * 2, value.charCodeAt(i));
    },
  };
}

/** A structure's checksum: the complement of the sum of its bytes, the checksum's own four taken as zeros. */
export function checksumOf(bytes: Uint8Array, checksumAt: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.byteLength; i++) if (i < checksumAt || i >= checksumAt + 4) sum += bytes[i]!;
  return ~sum >>> 0;
}
