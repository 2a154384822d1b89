// Backs up VMs, one after another, then applies the retention. One that fails does not stop the others.
//
//   node examples/nightly-backup.ts <repository folder> [--image] <VM> …
//
// --image: whole archives, for pools without NBD or a licence for changed block tracking. A full is made on Sundays. Each run
// leaves its report in <repository folder>-reports.jsonl. Exit code 1 when something failed. See connect.ts for the host.
import { appendFile } from 'node:fs/promises';
import { backupVm, directoryStore, openRepository, RunError } from 'xen-backup-sdk';
import { showProgress } from 'xen-backup-sdk/console';
import { connectFromEnvironment } from './connect.ts';
import { HOST, readArguments } from './usage.ts';

const { values, positionals } = readArguments(`nightly-backup.ts <repository folder> [--image] <VM> …; ${HOST}`, {
  count: [2, Number.POSITIVE_INFINITY],
  options: { image: { type: 'boolean' } },
});
const [folder = '', ...vms] = positionals;
const strategy = values.image === true ? 'image' : 'changed-blocks';
const mode = new Date().getDay() === 0 ? 'full' : 'auto';
const repository = await openRepository(await directoryStore(folder));
const host = await connectFromEnvironment();
try {
  for (const vm of vms) {
    const { onProgress, close } = showProgress();
    let report: object;
    try {
      const result = await backupVm(host, repository, { vm, strategy, mode, waitMs: 60_000, onProgress });
      report = result.report;
      console.log(`${vm}: ${result.point.point}, ${result.report.transfer.bytes} bytes moved`);
    } catch (error) {
      process.exitCode = 1;
      console.error(`${vm}: ${error instanceof RunError ? `${error.code}: ${error.message}` : error}`);
      report = error instanceof RunError ? error.report : { vm, error: String(error) };
    } finally {
      close();
    }
    await appendFile(`${folder}-reports.jsonl`, `${JSON.stringify(report)}\n`);
  }
} finally {
  await host.close();
}

const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? '' : 's'}`;
const policy = { keepDaily: 7, keepWeekly: 4, keepMonthly: 12, merge: true };
const { removed, merged, cleared } = await repository.prune(await repository.planPrune(policy));
console.log(
  `retention: ${count(removed.length, 'point')} removed, ${merged.length} made full, ${count(cleared.length, 'file')} cleared`,
);
const { ok, points } = await repository.verify('all', { level: 'structure' });
console.log(`${count(points.length, 'point')}: ${ok ? 'whole' : 'DAMAGED'}`);
if (!ok) process.exitCode = 1;
