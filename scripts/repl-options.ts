import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { ConnectHostOptions } from 'xen-backup-sdk';
import type { ReplOptions } from 'xen-backup-sdk/console';
import type { SimulatorOptions } from 'xen-backup-sdk/simulator';

export const USAGE = `npm run repl [-- options]

  Node's REPL with every public name of xen-backup-sdk. Try: npm run repl -- --simulate

  --simulate               a simulated pool with two VMs to play with
  --profile <name>         which release it plays: xcp-ng-8.3 (default), xcp-ng-8.2, xenserver-8, xenserver-7.3 …
  --host https://<host>    a real pool: its coordinator
  --user <name>            default: root
  --password-file <file>   holds the password; without it the environment variable XEN_PASSWORD does, or you are asked.
                           No option takes the password itself: every user of this machine would see it in the list of
                           processes
  --fingerprint <sha256>   trust exactly this certificate, or:
  --ca <file>              trust this authority (PEM), or:
  --insecure               trust every certificate
  --repository <folder>    made where there is none; with --simulate the default is one in memory
  --history <file>         default: .xen-backup-sdk_history in your home folder; --no-history keeps nothing
  --help
`;

/** What the options may need beside the command line. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Asks for the password; `undefined` where there is nobody to ask. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
}

/**
 * The options of `startRepl` as the command line gives them; `undefined` where help is wanted.
 *
 * @throws TypeError for a command line that makes no sense.
 */
export async function replOptions(
  args: readonly string[],
  surroundings: Surroundings,
): Promise<ReplOptions | undefined> {
  const { values } = parseArgs({
    args: [...args],
    allowNegative: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      simulate: { type: 'boolean', default: false },
      profile: { type: 'string' },
      host: { type: 'string' },
      user: { type: 'string', default: 'root' },
      'password-file': { type: 'string' },
      fingerprint: { type: 'string' },
      ca: { type: 'string' },
      insecure: { type: 'boolean', default: false },
      repository: { type: 'string' },
      history: { type: 'string' },
      'no-history': { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const { simulate, profile, host: url, user: username, repository } = values;
  if (simulate && url !== undefined) throw new TypeError('--host and --simulate exclude each other');
  if (profile !== undefined && !simulate) throw new TypeError('--profile needs --simulate');
  const historyFile = values['no-history'] ? false : values.history;
  if (url === undefined) return { simulate: simulate && simulated(profile), repository, historyFile };
  const password = await passwordFor(`${username} at ${url}`, values['password-file'], surroundings);
  return { host: { url, username, password, ...(await trustOf(values)) }, repository, historyFile };
}

function simulated(profile: string | undefined): SimulatorOptions {
  return { profile: profile as SimulatorOptions['profile'] };
}

async function passwordFor(who: string, file: string | undefined, { env, ask }: Surroundings): Promise<string> {
  if (file !== undefined) return (await readFile(file, 'utf8')).replace(/\r?\n$/, '');
  const given = env['XEN_PASSWORD'];
  if (given !== undefined && given !== '') return given;
  if (ask === undefined) throw new TypeError('--host needs --password-file, or a password in XEN_PASSWORD');
  return ask(`Password of ${who}: `);
}

interface TrustFlags {
  readonly fingerprint?: string | undefined;
  readonly ca?: string | undefined;
  readonly insecure: boolean;
}

async function trustOf({
  fingerprint,
  ca,
  insecure,
}: TrustFlags): Promise<Pick<ConnectHostOptions, 'tls' | 'insecure'>> {
  if (insecure) return { insecure: true };
  if (ca !== undefined) return { tls: { ca: await readFile(ca, 'utf8') } };
  return fingerprint === undefined ? {} : { tls: { fingerprint256: fingerprint } };
}
