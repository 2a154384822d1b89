import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../core/index.ts';
import type { FileSystem } from './durable-folder.ts';
import { processExists, thisMachine } from './living-process.ts';
import { KEPT_FOR_MS } from './store.ts';
import { systemCode } from './store-error.ts';

/** Names in use by this process: it may have the same pid as a process that died, in a container for example. */
const live = new Set<string>();

const NAME = /^([0-9a-f]{8})-([0-9]+)-[0-9]+-[0-9a-f]{12}$/;
const CLAIM = /^claim-[0-9a-f]{64}$/;
const KEPT = /^kept-./;

/** A temporary file's name says who makes it: machine, process, time (ms) and a random number. */
export function claimTempName(clock: Clock): string {
  const name = `${thisMachine()}-${process.pid}-${clock.now()}-${randomBytes(6).toString('hex')}`;
  live.add(name);
  return name;
}

/** Says that this process uses the name no more. */
export function releaseTempName(name: string): void {
  live.delete(name);
}

/** The claim file that stands for publishing `name`, where there are no hard links. */
export function claimFileName(name: string): string {
  return `claim-${createHash('sha256').update(name).digest('hex')}`;
}

/** What was staged under a key, to be found again by another process: its age alone tells whether anybody still wants it. */
export function keptFileName(key: string): string {
  return `kept-${key}`;
}

/**
 * Removes from `folder` what dead writers left: files named as above, not written to since `before` (ms), whose process is
 * not alive on this machine. Whether a process of another machine lives cannot be known here: there the age decides.
 *
 * @returns the names that were removed.
 */
export async function removeAbandonedFiles(fs: FileSystem, folder: string, before: number): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await namesIn(fs, folder)) {
    if (!isOurs(name) || isAlive(name)) continue;
    const path = join(folder, name);
    const stat = await fs.lstat(path).catch(ignoreMissing);
    if (stat === undefined || !stat.isFile() || stat.mtimeMs >= (KEPT.test(name) ? before - KEPT_FOR_MS : before))
      continue;
    await fs.rm(path, { force: true });
    removed.push(name);
  }
  return removed.sort();
}

async function namesIn(fs: FileSystem, folder: string): Promise<string[]> {
  return (await fs.readdir(folder).catch(ignoreMissing)) ?? [];
}

function ignoreMissing(error: unknown): undefined {
  if (systemCode(error) !== 'ENOENT') throw error;
}

function isOurs(name: string): boolean {
  return NAME.test(name) || CLAIM.test(name) || KEPT.test(name);
}

function isAlive(name: string): boolean {
  const [, machine, pid] = NAME.exec(name) ?? [];
  if (machine !== thisMachine()) return false;
  if (Number(pid) === process.pid) return live.has(name);
  return processExists(Number(pid));
}
