// npm run repl: Node's REPL with the library at hand. `--help` lists the options.
import { BackupError } from 'xen-backup-sdk';
import { startRepl } from 'xen-backup-sdk/console';
import { askSecret } from './ask-secret.ts';
import { replOptions, USAGE } from './repl-options.ts';
import { stopOnSignals } from './stop-on-signals.ts';

/** Ends the session in order, and leaves its code behind. */
const stopped = () =>
  stopOnSignals((exitCode) => {
    process.exitCode = exitCode;
  });

try {
  const { env, stdin, stdout } = process;
  const ask = stdin.isTTY ? (question: string) => askSecret(question, stdin, stdout) : undefined;
  const options = await replOptions(process.argv.slice(2), { env, ask });
  if (options === undefined) console.log(USAGE);
  else await (await startRepl({ ...options, signal: stopped() })).closed;
} catch (error) {
  process.exitCode ||= 1;
  const message = error instanceof Error ? error.message : String(error);
  console.error(error instanceof BackupError ? `${error.code}: ${message}` : message);
  if (error instanceof TypeError || error instanceof RangeError)
    console.error('npm run repl -- --help lists the options.');
  if (process.env['DEBUG'] !== undefined) console.error(error);
}
process.exit(); // what was opened at the prompt, a server say, would keep the process alive
