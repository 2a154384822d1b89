import { backupVm, runBackup } from '../backup/index.ts';
import { type ConnectHostOptions, connectHost } from '../host/index.ts';
import { restoreVm, runRestore } from '../restore/index.ts';
import { copyPoint, type Repository } from '../store/index.ts';
import { PUBLIC_NAMES } from './public-names.ts';
import type { ReplHistory } from './repl-history.ts';
import type { Resources } from './repl-resources.ts';
import type { Runs } from './repl-runs.ts';

/**
 * Classes that the library knows values by. The prompt has a realm of its own: what its own classes make would not be
 * recognised.
 */
const CLASSES = { ArrayBuffer, BigUint64Array, DataView, Map, Uint8Array, Uint16Array, Uint32Array };

/** Every name at the prompt: the package's public ones, and what the session has opened. */
export function contextOf(resources: Resources, runs: Runs, history: ReplHistory): Record<string, unknown> {
  const { host, repository, simulator } = resources;
  const opened = { host, repository: repository && withProgress(repository, runs), simulator };
  return {
    ...CLASSES,
    ...PUBLIC_NAMES,
    backupVm: runs.shown(backupVm, 2),
    runBackup: runs.shown(runBackup, 3),
    restoreVm: runs.shown(restoreVm, 2),
    runRestore: runs.shown(runRestore, 3),
    copyPoint: runs.shown(copyPoint, 3),
    async connectHost(options: ConnectHostOptions) {
      hideSecrets(history, options);
      const connected = await connectHost(options);
      resources.add(connected);
      return connected;
    },
    ...Object.fromEntries(Object.entries(opened).filter(([, value]) => value !== undefined)),
  };
}

/** What is used as a secret is none of the history's, even where the line that typed it looked harmless. */
export function hideSecrets(history: ReplHistory, { password, proxy }: ConnectHostOptions): void {
  if (password !== undefined) history.hide(password);
  if (proxy === undefined || !URL.canParse(proxy)) return;
  const inProxy = new URL(proxy).password;
  for (const secret of [inProxy, decodeURIComponent(inProxy)]) history.hide(secret);
}

function withProgress(repository: Repository, runs: Runs): Repository {
  return { ...repository, verify: runs.shown(repository.verify, 1), prune: runs.shown(repository.prune, 1) };
}
