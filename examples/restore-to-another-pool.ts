// Restores a point to another pool than it came from: shows the plan first, stops at conflicts, reads the disks back.
//
//   node examples/restore-to-another-pool.ts <repository folder> <VM uuid> [options]
//
//   --point <name>      unless told, the newest
//   --name <name>       of the restored VM
//   --sr <uuid or name> for its disks
//   --network <uuid or name>  for interfaces whose network the pool does not have
//   --start             starts it
//
// See connect.ts for the pool.
import { directoryStore, openRepository, planRestore, runRestore } from 'xen-backup-sdk';
import { showProgress } from 'xen-backup-sdk/console';
import { connectFromEnvironment } from './connect.ts';
import { HOST, readArguments } from './usage.ts';

const text = { type: 'string' } as const;
const usage =
  'restore-to-another-pool.ts <repository folder> <VM uuid> [--point <name>] [--name <name>] [--sr <uuid or name>] ' +
  `[--network <uuid or name>] [--start]; ${HOST}`;
const { values, positionals } = readArguments(usage, {
  count: [2, 2],
  options: { point: text, name: text, sr: text, network: text, start: { type: 'boolean' } },
});
const [folder = '', vmUuid = ''] = positionals;
const repository = await openRepository(await directoryStore(folder), { create: false });
const points = await repository.list({ vm: vmUuid });
const point = values.point === undefined ? points.at(-1) : points.find((one) => one.point === values.point);
if (point === undefined) throw new Error(`no such point of VM ${vmUuid}: there are ${points.length}`);

const host = await connectFromEnvironment();
const { onProgress, close } = showProgress();
try {
  const { name, sr, network: defaultNetwork } = values;
  const plan = await planRestore(host, repository, { point, name, sr, defaultNetwork });
  for (const disk of plan.disks) console.log(`disk ${disk.device}: ${disk.size} bytes to ${disk.srName ?? '-'}`);
  for (const { message } of plan.conflicts) console.error(`conflict: ${message}`);
  if (plan.conflicts.length > 0) process.exitCode = 1;
  else {
    const { vmUuid: made, identity } = await runRestore(host, repository, plan, {
      verify: true,
      start: values.start ?? false,
      onProgress,
    });
    console.log(`${made}: restored as ${identity}, read back and compared`);
  }
} finally {
  close();
  await host.close();
}
