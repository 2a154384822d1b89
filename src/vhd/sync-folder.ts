import { open } from 'node:fs/promises';

/** What file systems say that cannot sync a folder: over a network, mostly. There the file's own sync has to do. */
const CANNOT_SYNC: ReadonlySet<unknown> = new Set(['EINVAL', 'ENOTSUP']);

/** Makes new names and renames in a folder durable; Windows does it by itself and opens no folders. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && CANNOT_SYNC.has(error.code))) throw error;
  } finally {
    await folder.close();
  }
}
