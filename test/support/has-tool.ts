import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian keeps the file system tools here, and leaves these folders out of an ordinary user's PATH. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin'];

/**
 * Is the program there, so that a test can ask it to judge? A laptop without it skips the test; CI (`CI=true`) must not,
 * so there a missing program throws.
 */
export function hasTool(name: string): boolean {
  const found = toolPath(name) !== undefined;
  if (!found && process.env['CI'] === 'true') throw new Error(`${name} is missing: CI must not skip the tests it judges`);
  return found;
}

/** Where the program lies, or `undefined`. */
export function toolPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // whatever the reason, it cannot be run
  }
}
