import type * as nodeFs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BackupError } from '../core/index.ts';
import type { readManyFiles } from './read-many-files.ts';
import type { readSmallFile } from './read-small-file.ts';
import { systemCode } from './store-error.ts';

/** The calls that a directory store makes, so that tests can let each of them fail. */
export type FileSystem = Pick<
  typeof nodeFs,
  'chmod' | 'link' | 'lstat' | 'mkdir' | 'open' | 'readdir' | 'realpath' | 'rename' | 'rm' | 'unlink'
>;

/** The calls of `node:fs/promises`, and those that are quicker than these for many small files. */
export type FileCalls = FileSystem & {
  readonly readSmallFile?: typeof readSmallFile;
  readonly readManyFiles?: typeof readManyFiles;
};

/** File systems that cannot sync a folder say so with one of these; Windows cannot even open one. */
const CANNOT_SYNC: ReadonlySet<string> = new Set(['EINVAL', 'EISDIR', 'ENOTSUP', 'EOPNOTSUPP']);
/** Folders above the store may be closed to us, or lie on what nobody writes to. */
const NOT_OURS: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EROFS']);

/** Makes the entries of a folder durable, where the file system can do that at all. */
export async function syncFolder(fs: FileSystem, path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await fs.open(path, 'r');
  try {
    await folder.sync();
  } catch (error) {
    if (!CANNOT_SYNC.has(systemCode(error) ?? '')) throw error;
  } finally {
    await folder.close();
  }
}

/** Makes durable what there is in a folder and all below it, and what is gone from there. */
export async function syncTree(fs: FileSystem, path: string): Promise<void> {
  for (const entry of await fs.readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await syncTree(fs, join(path, entry.name));
  }
  await syncFolder(fs, path);
}

/**
 * Makes a folder with all above it, durably, and gives its real path. What is there may have been made a moment ago by someone
 * who died before it was durable, so all is seen to, up to the first folder that is not ours to open.
 */
export async function makeRoot(fs: FileSystem, path: string): Promise<string> {
  await fs.mkdir(path, { recursive: true });
  const root = await fs.realpath(path);
  for (let made = root; made !== dirname(made); made = dirname(made)) {
    try {
      await syncFolder(fs, dirname(made));
    } catch (error) {
      if (NOT_OURS.has(systemCode(error) ?? '')) break;
      throw error;
    }
  }
  return root;
}

/**
 * Makes the folders `parts` below `root`, durably, following no symbolic link, and gives the last one's path. A folder
 * that is there may have been made a moment ago by someone who died before it was durable: each is seen to once, and
 * then remembered in `durable`.
 */
export async function makeFolders(
  fs: FileSystem,
  root: string,
  parts: readonly string[],
  durable: Set<string>,
  mode?: number,
): Promise<string> {
  let path = root;
  for (const part of parts) {
    const above = path;
    path = join(above, part);
    try {
      await fs.mkdir(path, { mode });
      durable.delete(path);
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
      if (!(await fs.lstat(path)).isDirectory()) throw notAFolder(path);
    }
    if (durable.has(path)) continue;
    await syncFolder(fs, above);
    durable.add(path);
  }
  return path;
}

/** The path of the folders `parts` below `root`; rejects with `ENOENT` where it is missing. */
export async function findFolder(fs: FileSystem, root: string, parts: readonly string[]): Promise<string> {
  const path = join(root, ...parts);
  if ((await fs.realpath(path)) !== path) throw notAFolder(path);
  return path;
}

function notAFolder(path: string): BackupError {
  return new BackupError('STORE_IO', `${path} is a file or leads through a symbolic link: expected a plain folder`, {
    facts: { path },
  });
}
