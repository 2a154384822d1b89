import { readdir, rm } from 'node:fs/promises';
import { BackupError, directoryStore, openRepository } from 'xen-backup-sdk';

/** What a repository is made of; beside anything else in the folder, the demo removes nothing. */
const OURS: ReadonlySet<string> = new Set(['repository.json', 'vms', '.tmp']);

/**
 * Removes what an earlier demo left in the folder, and refuses to touch anything else: a folder that is no repository,
 * or one with a backup of another pool than the simulated one.
 */
export async function emptyFolder(folder: string, poolName: string): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  if (names.length === 0) return;
  const foreign = names.find((name) => !OURS.has(name)) ?? (await foreignPoint(folder, poolName));
  if (foreign === undefined) await rm(folder, { recursive: true });
  else throw new TypeError(`${folder} holds ${foreign}, which is not the demo's to remove: give another --repository`);
}

async function foreignPoint(folder: string, poolName: string): Promise<string | undefined> {
  const repository = await openRepository(await directoryStore(folder), { create: false });
  for (const point of await repository.list()) {
    try {
      const { host } = await repository.get(point);
      if (host.poolName !== poolName) return `a backup of the pool ${host.poolName}`;
    } catch (error) {
      if (error instanceof BackupError) return `a backup that cannot be read (${error.message})`;
      throw error;
    }
  }
  return undefined;
}
