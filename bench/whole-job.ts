/** One run of a strategy in a process of its own. Started by `whole.ts`; prints `{ seconds, peakMib }` of the work. */
import { backupVm, type PlanBackupOptions } from '../src/backup/index.ts';
import { connectHost } from '../src/host/index.ts';
import { restoreVm } from '../src/restore/index.ts';
import { directoryStore, openRepository } from '../src/store/index.ts';
import type { HostAddress } from './host-process.ts';
import { report } from './job.ts';

export type WholeOrder =
  | { readonly run: 'backup'; readonly options: PlanBackupOptions }
  /** Of the newest point, as a new VM. */
  | { readonly run: 'restore'; readonly vm: string }
  | { readonly run: 'verify'; readonly vm: string };

const [address, folder, order] = process.argv.slice(2).map((text) => JSON.parse(text)) as [
  HostAddress,
  string,
  WholeOrder,
];
const { url, username, password, certificate } = address;
const host = await connectHost({ url, username, password, tls: { certificate } });
const repository = await openRepository(await directoryStore(folder));
await report(async () => {
  if (order.run === 'backup') {
    await backupVm(host, repository, order.options);
    return;
  }
  const point = (await repository.list({ vm: order.vm })).at(-1)!;
  if (order.run === 'verify') await repository.verify(point, { level: 'structure' });
  else await restoreVm(host, repository, { point, name: 'restored' });
});
await host.close();
