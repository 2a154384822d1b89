import { readFile } from 'node:fs/promises';
import {
  backupVm,
  type ConnectHostOptions,
  connectHost,
  directoryStore,
  type Host,
  openRepository,
  type ProgressListener,
  restoreVm,
  verifyRestored,
} from 'xen-backup-sdk';
import { recorder } from './record.ts';
import { backupRows, type DemoRow, restoreRows } from './summary.ts';

export interface RealDemo {
  readonly url: string;
  readonly username: string;
  readonly vm?: string | undefined;
  readonly ca?: string | undefined;
  readonly fingerprint?: string | undefined;
  readonly insecure: boolean;
  readonly restore: boolean;
  readonly record?: string | undefined;
  readonly folder: string;
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
}

/** One backup of a VM of a real pool; with `restore` it comes back beside the original, and is read back and compared. */
export async function demoOnHost(options: RealDemo): Promise<DemoRow[]> {
  const { url, username, vm, onProgress, signal } = options;
  const password = process.env['XEN_PASSWORD'];
  if (vm === undefined) throw new TypeError('--url needs --vm: the name or uuid of what to back up');
  if (password === undefined || password === '')
    throw new TypeError('the password is expected in the environment variable XEN_PASSWORD');
  const trust = await trustOf(options);
  const transcript = await recorder(options.record);
  const { onExchange } = transcript;
  let host: Host | undefined;
  try {
    host = await connectHost({ url, username, password, ...trust, onExchange, signal });
    const repository = await openRepository(await directoryStore(options.folder));
    const result = await backupVm(host, repository, { vm, onProgress, signal });
    const rows = backupRows(result);
    if (options.restore) {
      const { point } = result;
      const restored = await restoreVm(host, repository, { point, onProgress, signal });
      const verified = await verifyRestored(host, repository, { point, disks: restored.disks, signal });
      const equal = new Map(verified.map((disk) => [disk.vdiUuid, disk.equal]));
      rows.push(...restoreRows(result.manifest, restored, equal));
    }
    return rows;
  } finally {
    await host?.close();
    await transcript.close();
  }
}

async function trustOf({ ca, fingerprint, insecure }: RealDemo): Promise<Pick<ConnectHostOptions, 'tls' | 'insecure'>> {
  if (insecure) return { insecure: true };
  if (ca !== undefined) return { tls: { ca: await readFile(ca, 'utf8') } };
  return fingerprint === undefined ? {} : { tls: { fingerprint256: fingerprint } };
}
