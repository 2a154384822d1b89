import { BackupError } from '../core/index.ts';

const PART = /^[a-z0-9_-][a-z0-9._-]*$/;
/** What Windows keeps for devices, whatever follows the first dot. */
const DEVICE = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/;
/** Leaves room for a temporary suffix below the 255 bytes of common file systems. */
const LONGEST_PART = 200;
/** Object stores end at 1024 bytes, Windows paths at 260 without the long form. */
const LONGEST_NAME = 512;

/**
 * Can `part` stand between two `/` of a name on every file system? Lower-case letters, digits, `-`, `_` and `.`, no
 * dot at either end, no device name of Windows, at most 200 characters.
 */
export function isNamePart(part: string): boolean {
  return part.length <= LONGEST_PART && PART.test(part) && !part.endsWith('.') && !DEVICE.test(part);
}

/** Is this a name that a {@link Store} takes: parts as in {@link isNamePart} joined by `/`, at most 512 characters? */
export function isName(name: string): boolean {
  return name.length <= LONGEST_NAME && name.split('/').every(isNamePart);
}

/** Throws `STORE_NAME_INVALID` unless {@link isName}. */
export function checkName(name: string): void {
  if (isName(name)) return;
  throw new BackupError(
    'STORE_NAME_INVALID',
    `a name in a store must be parts of a-z, 0-9, "-", "_" and "." joined by "/", got ${JSON.stringify(name)}`,
    { facts: { name } },
  );
}

/** Throws `STORE_NAME_INVALID` unless `prefix` is empty or a name followed by one `/`. */
export function checkPrefix(prefix: string): void {
  if (prefix === '' || (prefix.endsWith('/') && isName(prefix.slice(0, -1)))) return;
  throw new BackupError(
    'STORE_NAME_INVALID',
    `a prefix in a store must be empty or a name that ends with "/", got ${JSON.stringify(prefix)}`,
    { facts: { name: prefix } },
  );
}

/** Throws `STORE_NAME_INVALID` unless the key of a staged file is a {@link isNamePart}. */
export function checkKey(key: string): void {
  if (isNamePart(key)) return;
  const message = `the key of a staged file must be of a-z, 0-9, "-", "_" and ".", got ${JSON.stringify(key)}`;
  throw new BackupError('STORE_NAME_INVALID', message, { facts: { name: key } });
}
