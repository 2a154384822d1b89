import type { Dirent } from 'node:fs';
import { join } from 'node:path';
import type { FileSystem } from './durable-folder.ts';
import { isNamePart } from './names.ts';
import { isMissing } from './store-error.ts';

/** Folders of a folder that are read at once. */
const TOGETHER = 8;

/** Collects the names of files below `folder`; `false` where there was something that it may not follow. */
export async function walkNames(
  fs: FileSystem,
  folder: string,
  prefix: string,
  names: string[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  signal?.throwIfAborted();
  let complete = true;
  let entries: Dirent[];
  try {
    entries = await fs.readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (isMissing(error)) return true; // gone since it was listed
    throw error;
  }
  const folders: string[] = [];
  for (const entry of entries) {
    if (!isNamePart(entry.name)) continue;
    if (entry.isFile()) names.push(prefix + entry.name);
    else if (entry.isDirectory()) folders.push(entry.name);
    else complete = false;
  }
  for (let at = 0; at < folders.length; at += TOGETHER) {
    const walking = folders
      .slice(at, at + TOGETHER)
      .map((name) => walkNames(fs, join(folder, name), `${prefix}${name}/`, names, signal));
    for (const below of await Promise.all(walking)) complete &&= below;
  }
  return complete;
}
