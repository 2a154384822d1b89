/** A value from outside that is not what its field promises; callers put it in their own words. */
export class FieldError extends Error {
  /** Path of the field: `disks[0].size`; empty for the whole. */
  readonly field: string;
  readonly expected: string;
  /** What was there, shortened. */
  readonly actual: string;

  constructor(field: string, expected: unknown, actual: unknown, shown = shorten(actual)) {
    super(`${field === '' ? 'the file' : field}: expected ${String(expected)}, got ${shown}`);
    this.field = field;
    this.expected = String(expected);
    this.actual = shown;
  }

  /** The same, of the value of which this one's is a part: paths are put together only where something is wrong. */
  within(parent: string): FieldError {
    const between = parent === '' || this.field === '' || this.field.startsWith('[') ? '' : '.';
    return new FieldError(`${parent}${between}${this.field}`, this.expected, undefined, this.actual);
  }
}

/** Gives the value with its type, or throws a {@link FieldError} that names `at`. */
export type Check<T> = (value: unknown, at: string) => T;

/** An object with these fields; fields that are not listed are left out, those that are `undefined`, too. */
export function object<T extends object>(fields: { readonly [K in keyof T]-?: Check<T[K]> }): Check<T> {
  const entries = Object.entries(fields) as [string, Check<unknown>][];
  return (value, at) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new FieldError(at, 'an object', value);
    }
    const found: Record<string, unknown> = {};
    let current = '';
    try {
      for (const [key, check] of entries) {
        current = key;
        const given = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
        const checked = check(given, '');
        if (checked !== undefined) found[key] = checked;
      }
    } catch (error) {
      throw error instanceof FieldError ? error.within(current).within(at) : error;
    }
    return found as T;
  };
}

export function arrayOf<T>(check: Check<T>): Check<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new FieldError(at, 'a list', value);
    let current = 0;
    try {
      return value.map((item, index) => {
        current = index;
        return check(item, '');
      });
    } catch (error) {
      throw error instanceof FieldError ? error.within(`[${current}]`).within(at) : error;
    }
  };
}

export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, at) => (value === undefined ? undefined : check(value, at));
}

export function oneOf<const T extends string>(...choices: readonly T[]): Check<T> {
  return (value, at) => {
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new FieldError(at, choices.join(' or '), value);
    return found;
  };
}

export function literal<const T>(expected: T): Check<T> {
  return (value, at) => {
    if (value !== expected) throw new FieldError(at, expected, value);
    return expected;
  };
}

export function matching(what: string, matches: (value: string) => boolean): Check<string> {
  return (value, at) => {
    if (typeof value !== 'string' || !matches(value)) throw new FieldError(at, what, value);
    return value;
  };
}

export const text: Check<string> = matching('a string', () => true);

export const sha256: Check<string> = matching('64 hexadecimal digits', (value) => /^[0-9a-f]{64}$/.test(value));

export const utcTime: Check<string> = matching(
  'a time as 2026-11-22T18:05:12.345Z',
  (value) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/.test(value) && !Number.isNaN(Date.parse(value)),
);

/** A size, a length, a count: a safe integer that is not negative. */
export const integer: Check<number> = (value, at) => {
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    throw new FieldError(at, 'an integer from 0 to 2^53-1', value);
  return value as number;
};

export const boolean: Check<boolean> = (value, at) => {
  if (typeof value !== 'boolean') throw new FieldError(at, 'true or false', value);
  return value;
};

function shorten(value: unknown): string {
  // Not written out: what comes from outside may be nested deeper than the stack.
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  const shown = value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
}
