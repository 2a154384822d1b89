// The whole road in one command: a VM goes into a repository and comes back, and every byte is compared.
//
//   npm run demo                                           against a simulated pool
//   XEN_PASSWORD=… npm run demo -- --url https://xen.example.org --username root --vm web --fingerprint AB:CD:…
//                                                          against a real one: one backup; with --restore it comes back, too
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { BackupError, type ProgressListener, RunError } from 'xen-backup-sdk';
import { showProgress } from 'xen-backup-sdk/console';
import { demoOnHost } from './real-host.ts';
import { demoOnSimulator } from './simulated.ts';
import { type DemoRow, printSummary } from './summary.ts';

const USAGE = `npm run demo [-- options]

  Without --url the demo starts a simulated pool, and needs nothing else.

  --repository <folder>   where the backup goes, default: ./demo-repository; the simulated demo first removes what an
                          earlier one left there, and refuses a folder with anything else in it
  --record <file>         save what was said to the host, without secrets, one JSON object a line

  --url https://<host>    a real pool; the password comes from the environment variable XEN_PASSWORD
  --vm <name or uuid>     what to back up
  --username <name>       default: root
  --fingerprint <sha256>  trust exactly this certificate, or:
  --ca <file>             trust this authority (PEM), or:
  --insecure              trust every certificate
  --restore               bring the VM back beside the original, and compare every byte
`;

/** What to do about an error that a first run often ends with. */
const HINTS: Readonly<Record<string, string>> = {
  HOST_UNREACHABLE: 'Is the address right, and can this machine reach it?',
  HOST_AUTHENTICATION_FAILED: 'Check --username and the environment variable XEN_PASSWORD.',
  HOST_CERTIFICATE_MISMATCH:
    "No credential was sent. Compare the fingerprint above with the one on the host's console, then pass it as --fingerprint.",
  NOT_FOUND: 'The name must be exact, capitals included; a uuid always works.',
};

/** Ctrl-C ends the run in order: what it made on the host is removed. Pressed again, it ends the process at once. */
function stopOnInterrupt(onProgress: ProgressListener): AbortSignal {
  const stop = new AbortController();
  process.once('SIGINT', () => {
    const message = 'stopping, and removing what was made; Ctrl-C again ends at once and leaves it';
    onProgress({ kind: 'warning', run: 'backup', code: 'INTERRUPTED', message }); // above the bars, which stay whole
    stop.abort();
  });
  return stop.signal;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean', short: 'h', default: false },
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
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const { url, record } = values;
  if (url === undefined && (values.vm !== undefined || values.restore))
    throw new TypeError('--vm and --restore need --url');
  const { onProgress, close } = showProgress();
  const folder = resolve(values.repository);
  const options = { folder, onProgress, record, signal: stopOnInterrupt(onProgress) };
  let rows: readonly DemoRow[];
  try {
    rows = url === undefined ? await demoOnSimulator(options) : await demoOnHost({ ...values, ...options, url });
  } finally {
    close();
  }
  await printSummary(rows, folder, { ext4: url === undefined });
  if (rows.some(({ verified }) => verified === 'DIFFERENT')) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  process.exitCode = 1;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof BackupError ? error.code : undefined;
  console.error(`\n${code === undefined ? '' : `${code}: `}${message}`);
  const hint = code === undefined ? undefined : HINTS[code];
  if (hint !== undefined) console.error(hint);
  const left = error instanceof RunError ? error.receipt.filter(({ state }) => state === 'left') : [];
  for (const { kind, name } of left)
    console.error(`left behind: ${kind} ${name}; findLeftovers and cleanUp take care of it`);
  if (error instanceof TypeError) console.error('npm run demo -- --help lists the options.');
  if (process.env['DEBUG'] !== undefined) console.error(error);
}
