/** A full by the image strategy into a folder. Started by `export.ts`; prints `{ seconds, peakMib }` of the work. */
import { backupVm } from '../src/backup/index.ts';
import { connectHost } from '../src/host/index.ts';
import { directoryStore, openRepository } from '../src/store/index.ts';
import { report } from './job.ts';

const { url, username, password, certificate, vm, folder } = JSON.parse(process.argv[2] ?? '') as Record<
  string,
  string
>;
const host = await connectHost({
  url: url!,
  username: username!,
  password: password!,
  tls: { certificate: certificate! },
});
const repository = await openRepository(await directoryStore(folder!));
await report(async () => {
  await backupVm(host, repository, { vm: vm!, strategy: 'image', mode: 'full', keepForIncremental: false });
});
await host.close();
