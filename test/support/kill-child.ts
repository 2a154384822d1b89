import { backupVm } from '../../src/backup/index.ts';
import { connectHost } from '../../src/host/index.ts';
import { directoryStore, openRepository } from '../../src/store/index.ts';

/** What the parent tells on the command line. */
interface Orders {
  readonly url: string;
  readonly username: string;
  readonly password: string;
  readonly certificate: string;
  readonly vm: string;
  readonly folder: string;
  readonly strategy: 'image' | 'changed-blocks';
  readonly resumable?: boolean;
  /** The stage at whose start the process kills itself, as power loss would: nothing is cleaned up. */
  readonly killAt: string;
}

const { url, username, password, certificate, vm, folder, strategy, resumable, killAt } = JSON.parse(
  process.argv[2] ?? '',
) as Orders;
const host = await connectHost({ url, username, password, tls: { certificate } });
const repository = await openRepository(await directoryStore(folder));
await backupVm(host, repository, {
  vm,
  strategy,
  resumable,
  onProgress(event) {
    const reached = event.kind === 'stage' ? event.stage === killAt : event.kind === killAt;
    if (reached) process.kill(process.pid, 'SIGKILL');
  },
});
await host.close();
