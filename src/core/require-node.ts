import zlib from 'node:zlib';

/**
 * Fails on a Node older than 22.15, which would fail later, in the middle of a backup, and not say why. Zstandard is the newest
 * thing that we need of Node. It is never imported by name: that would fail before this is asked, with less to go by.
 *
 * @throws Error that names what is needed and what is there.
 */
export function requireNode(): void {
  if ('createZstdCompress' in zlib) return;
  throw new Error(`xen-backup-sdk needs Node 22.15 or newer (of Node 23: 23.8), and this is Node ${process.version}`);
}
