// The whole road in one command: a VM goes into a repository and comes back, and every byte is compared.
//
//   npm run demo                                           against a simulated pool
//   XEN_PASSWORD=… npm run demo -- --url https://xen.example.org --username root --vm web --fingerprint AB:CD:…
//                                                          against a real one: one backup; with --restore it comes back, too
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { showProgress } from 'xen-backup-sdk/console';
import { demoOnHost } from './real-host.ts';
import { demoOnSimulator } from './simulated.ts';
import { type DemoRow, printSummary } from './summary.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    username: { type: 'string', default: 'root' },
    vm: { type: 'string' },
    ca: { type: 'string' },
    fingerprint: { type: 'string' },
    insecure: { type: 'boolean', default: false },
    restore: { type: 'boolean', default: false },
    record: { type: 'string' },
    repository: { type: 'string', default: './demo-repository' },
  },
});

const folder = resolve(values.repository);
const progress = showProgress();
let rows: readonly DemoRow[];
try {
  const { onProgress } = progress;
  if (values.url === undefined) rows = await demoOnSimulator({ folder, onProgress, record: values.record });
  else rows = await demoOnHost({ ...values, url: values.url, folder, onProgress });
} finally {
  progress.close();
}
await printSummary(rows, folder);
if (rows.some(({ verified }) => verified === 'DIFFERENT')) process.exitCode = 1;
