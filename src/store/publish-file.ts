import { dirname, join } from 'node:path';
import { createLog } from '../core/index.ts';
import { type FileSystem, syncFolder } from './durable-folder.ts';
import { systemCode } from './store-error.ts';
import { claimFileName } from './temp-files.ts';

const log = createLog('store');

/** What file systems without hard links answer: FAT, some network and FUSE file systems. */
const NO_HARD_LINKS: ReadonlySet<string> = new Set(['ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EPERM']);

/** A claim is held for a look and a rename: whoever made one that is older than this, in milliseconds, has died. */
const CLAIM_MS = 60_000;

/**
 * Gives the file `temp` the path `target`, durably, and never replaces a file that is there: then it returns `false`.
 * A hard link does that in one step; without them a claim file keeps others away between the look and the rename.
 */
export async function publishFile(fs: FileSystem, temp: string, target: string, claim: string): Promise<boolean> {
  try {
    await fs.link(temp, target);
  } catch (error) {
    const code = systemCode(error) ?? '';
    if (code === 'EEXIST') return false;
    if (!NO_HARD_LINKS.has(code)) throw error;
    if (!(await renameExclusively(fs, temp, target, claim))) return false;
  }
  try {
    await fs.rm(temp, { force: true });
    await syncFolder(fs, dirname(target));
    return true;
  } catch (error) {
    // Not surely durable: whoever is told "failed" must not find it there.
    await fs.rm(target, { force: true }).catch((left: unknown) => log.debug('left behind', { target, error: left }));
    throw error;
  }
}

/** The same, but takes the place of a file that is there. */
export async function replaceFile(fs: FileSystem, temp: string, target: string): Promise<void> {
  await fs.rename(temp, target);
  await syncFolder(fs, dirname(target));
}

async function renameExclusively(fs: FileSystem, temp: string, target: string, claim: string): Promise<boolean> {
  if (!(await takeClaim(fs, claim))) {
    // Another one is giving this name away right now, or died doing so.
    if (!(await removeOldClaim(fs, temp, claim)) || !(await takeClaim(fs, claim))) return false;
  }
  try {
    if (await exists(fs, target)) return false;
    await fs.rename(temp, target);
    return true;
  } finally {
    await fs.rm(claim, { force: true });
  }
}

async function takeClaim(fs: FileSystem, claim: string): Promise<boolean> {
  try {
    await (await fs.open(claim, 'wx', 0o600)).close();
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Removes a claim whose maker has died. Its age is held against that of `temp`, so that one clock tells both. It is put aside
 * first, which one of several can do, and looked at again: in between it may have become somebody's new one.
 */
async function removeOldClaim(fs: FileSystem, temp: string, claim: string): Promise<boolean> {
  const isOld = async (path: string) => (await fs.lstat(temp)).mtimeMs - (await fs.lstat(path)).mtimeMs > CLAIM_MS;
  const aside = join(dirname(claim), claimFileName(temp));
  try {
    if (!(await isOld(claim))) return false;
    await fs.rename(claim, aside);
    const wasOld = await isOld(aside);
    await fs.rm(aside, { force: true });
    return wasOld;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false; // another one was quicker
    throw error;
  }
}

/** Is there anything at `path`, a broken link included? */
export async function exists(fs: FileSystem, path: string): Promise<boolean> {
  try {
    await fs.lstat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw error;
  }
}
