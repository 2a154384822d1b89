import { FormatError } from '../core/index.ts';

/** One field of a binary structure: how many bytes it covers, and how they become a value and back. */
export interface Field<T> {
  /** In bytes. */
  readonly size: number;
  read(view: DataView, at: number, base: number): T;
  write(view: DataView, at: number, value: T): void;
}

// biome-ignore lint/suspicious/noExplicitAny: a table of fields holds fields of any type; `Shape` gives each its own back
export type Fields = Readonly<Record<string, Field<any>>>;
/** The value that a table of fields describes. */
export type Shape<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** A binary structure of fixed size. */
export interface Struct<T> {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** `base`: where in the file these bytes start, for error messages. */
  decode(bytes: Uint8Array, base?: number): T;
  /** @throws RangeError where a value does not fit its field: nothing is cut or wrapped around. */
  encode(value: T): Uint8Array;
}

/** A table of fields in file order; offsets follow from it, and the total is checked when the module loads. */
export function struct<F extends Fields>(name: string, size: number, fields: F): Struct<Shape<F>> {
  const slots: { key: string; field: Field<unknown>; at: number }[] = [];
  let end = 0;
  for (const [key, field] of Object.entries(fields)) {
    slots.push({ key, field, at: end });
    end += field.size;
  }
  if (end !== size) throw new RangeError(`${name}: fields cover ${end} bytes, the format says ${size}`);
  return {
    name,
    size,
    decode(bytes, base = 0) {
      if (bytes.byteLength !== size) {
        throw new FormatError('BYTES_LENGTH', { what: name, offset: base, expected: size, actual: bytes.byteLength });
      }
      const view = new DataView(bytes.buffer, bytes.byteOffset, size); // all three, or we read our neighbour's bytes
      return Object.fromEntries(slots.map(({ key, field, at }) => [key, field.read(view, at, base)])) as Shape<F>;
    },
    encode(value) {
      const bytes = new Uint8Array(size);
      const view = new DataView(bytes.buffer);
      for (const { key, field, at } of slots) {
        try {
          field.write(view, at, value[key]);
        } catch (cause) {
          throw new RangeError(`${name}, ${key}: ${cause instanceof Error ? cause.message : cause}`, { cause });
        }
      }
      return bytes;
    },
  };
}

/** A DataView wraps a number that does not fit around without a word: 2^32 would become 0. */
function inRange(value: number, max: number): number {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(`${value} is no whole number from 0 to ${max}`);
  }
  return value;
}

/** Unsigned. */
export const u8: Field<number> = {
  size: 1,
  read: (view, at) => view.getUint8(at),
  write: (view, at, value) => view.setUint8(at, inRange(value, 0xff)),
};

/** Unsigned, big-endian. */
export const u16: Field<number> = {
  size: 2,
  read: (view, at) => view.getUint16(at),
  write: (view, at, value) => view.setUint16(at, inRange(value, 0xffff)),
};

/** Unsigned, big-endian. */
export const u32: Field<number> = {
  size: 4,
  read: (view, at) => view.getUint32(at),
  write: (view, at, value) => view.setUint32(at, inRange(value, 0xffffffff)),
};

/** Unsigned, big-endian, all 64 bits: for values that are no size or offset. */
export const u64: Field<bigint> = {
  size: 8,
  read: (view, at) => view.getBigUint64(at),
  write(view, at, value) {
    if (BigInt.asUintN(64, value) !== value) throw new RangeError(`${value} does not fit in 64 bits without a sign`);
    view.setBigUint64(at, value);
  },
};

/** A 64-bit size or offset as a number; more than 2^53 - 1 is refused. */
export const size64: Field<number> = {
  size: 8,
  read: (view, at, base) => readSize64(view, at, base),
  write: (view, at, value) => view.setBigUint64(at, BigInt(inRange(value, Number.MAX_SAFE_INTEGER))),
};

/**
 * Text of fixed size, one byte a character (U+0000 to U+00FF), kept to the byte (NULs and trailing spaces, too). Shorter
 * text is filled up with NULs.
 */
export function ascii(size: number): Field<string> {
  return {
    size,
    read: (view, at) => Buffer.from(view.buffer, view.byteOffset + at, size).toString('latin1'),
    write(view, at, value) {
      if (value.length > size) throw new RangeError(`"${value}" is longer than ${size} bytes`);
      if (/[^\0-\xff]/.test(value)) throw new RangeError(`"${value}" has a character of more than one byte`);
      Buffer.from(view.buffer, view.byteOffset + at, size).write(value, 'latin1');
    },
  };
}

/** Bytes as they are, copied. */
export function raw(size: number): Field<Uint8Array> {
  return {
    size,
    read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, size).slice(),
    write(view, at, value) {
      if (value.byteLength !== size) throw new RangeError(`expected ${size} bytes, got ${value.byteLength}`);
      new Uint8Array(view.buffer, view.byteOffset + at, size).set(value);
    },
  };
}

/** Reads a big-endian 64-bit size or offset; more than 2^53 - 1 is refused. */
export function readSize64(view: DataView, at: number, base = 0): number {
  const value = view.getBigUint64(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new FormatError('BYTES_TOO_LARGE', {
      what: '64-bit size',
      offset: base + at,
      expected: `at most ${Number.MAX_SAFE_INTEGER}`,
      actual: String(value),
    });
  }
  return Number(value);
}
