// Backs up a VM and, when that is cut short, goes on where it was: after a failure of the host or the network in this process,
// after a kill or an interrupt (Ctrl-C) when the program is started again.
//
//   node examples/resuming-backup.ts <repository folder> <VM> [<tries: 5> [<seconds between them: 60>]]
//
// See connect.ts for the host.
import { setTimeout } from 'node:timers/promises';
import { backupVm, directoryStore, openRepository, RunError } from 'xen-backup-sdk';
import { showProgress } from 'xen-backup-sdk/console';
import { connectFromEnvironment } from './connect.ts';
import { endWithUsage, HOST, readArguments } from './usage.ts';

const usage = `resuming-backup.ts <repository folder> <VM> [<tries: 5> [<seconds between them: 60>]]; ${HOST}`;
const { positionals } = readArguments(usage, { count: [2, 4] });
const [folder = '', vm = '', tries = '5', seconds = '60'] = positionals;
if (!(Number(tries) >= 1 && Number(seconds) >= 0)) endWithUsage(usage);
const repository = await openRepository(await directoryStore(folder));
const stop = new AbortController();
process.once('SIGINT', () => stop.abort(new Error('interrupted')));

async function backUp() {
  const host = await connectFromEnvironment(); // anew each time: a host that was restarted knows no old session
  const { onProgress, close } = showProgress();
  try {
    const options = { vm, resumable: true, signal: stop.signal, onProgress };
    return await backupVm(host, repository, options);
  } finally {
    close();
    await host.close();
  }
}

for (let left = Number(tries) - 1; ; left--) {
  try {
    const { point, report } = await backUp();
    const went = report.decisions.find(({ subject, topic }) => subject === 'vm' && topic === 'resume');
    console.log(`${point.point}: ${report.transfer.bytes} bytes moved${went === undefined ? '' : `, ${went.choice}`}`);
    break;
  } catch (error) {
    const until = error instanceof RunError ? error.report.resumableUntil : undefined;
    console.error(String(error), until === undefined ? '' : `(can be gone on with until ${until})`);
    if (left <= 0 || stop.signal.aborted) {
      process.exitCode = 1;
      break;
    }
    await setTimeout(Number(seconds) * 1000, undefined, { signal: stop.signal });
  }
}
