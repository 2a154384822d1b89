import { randomUUID } from 'node:crypto';
import { BackupError, type CallOptions, type Clock, createLog, shownAs, systemClock } from '../core/index.ts';
import { acquireLease, inspectLease } from './acquire-lease.ts';
import { beginPoint } from './begin-point.ts';
import { FieldError, integer, matching, object } from './fields.ts';
import { REPOSITORY_FILE } from './layout.ts';
import { MANIFEST_FORMAT } from './manifest.ts';
import { refuseNewer } from './manifest-codec.ts';
import { openMergedDisk, openPointFile, openPointLayer, readPointMetadata } from './open-disk.ts';
import { followBases, latestPoint, listPoints, readManifest, readWhole } from './points.ts';
import { planPrune, prune } from './prune.ts';
import { removePoint } from './remove-point.ts';
import type { Repository } from './repository.ts';
import { checkSeal, encodeSealed, parseJson } from './sealed-json.ts';
import type { Store } from './store.ts';
import { readUnfinished } from './unfinished.ts';
import { verifyPoints } from './verify.ts';

const log = createLog('repository');
const LONGEST = 64 * 1024;

export interface OpenRepositoryOptions extends CallOptions {
  /**
   * Whether an empty store becomes a repository. `false` guards against a folder that is not mounted.
   * @defaultValue `true`
   */
  readonly create?: boolean | undefined;
  /**
   * Gives points their names.
   * @defaultValue the machine's clock
   */
  readonly clock?: Clock | undefined;
}

/** What `repository.json` says. */
interface RepositoryFile {
  readonly format: { readonly major: number; readonly minor: number };
  readonly id: string;
}

const repositoryFile = object<RepositoryFile>({
  format: object<RepositoryFile['format']>({ major: integer, minor: integer }),
  id: matching('a uuid', (value) => /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value)),
});

/**
 * Opens the repository in a store, and makes one where the store is empty. Opening an existing one only reads. The first
 * `begin` clears what writers that were killed left without a name (`Store.removeAbandoned`).
 *
 * @throws BackupError `REPOSITORY_MISSING` where the store is empty and `create` is `false`; `REPOSITORY_INVALID` where
 * it holds something else, or a `repository.json` that is none; `REPOSITORY_FORMAT_NEWER`.
 */
export async function openRepository(store: Store, options: OpenRepositoryOptions = {}): Promise<Repository> {
  const { clock = systemClock } = options;
  const { id } = (await readRepositoryFile(store, options)) ?? (await createRepository(store, options));
  let cleared: Promise<void> | undefined;
  const repository: Repository = {
    id,
    store,
    list: (listOptions) => listPoints(store, listOptions),
    get: (point, callOptions) => readManifest(store, point, callOptions),
    latest: (vmUuid, strategy, latestOptions) => latestPoint(store, vmUuid, strategy, latestOptions),
    async chain(point, callOptions) {
      return followBases(store, await readManifest(store, point, callOptions), ({ base }) => base, callOptions);
    },
    openLayer: (point, vdiUuid, callOptions) => openPointLayer(store, point, vdiUuid, callOptions),
    openDisk: (point, vdiUuid, callOptions) => openMergedDisk(store, point, vdiUuid, callOptions),
    openFile: (point, role, callOptions) => openPointFile(store, point, role, callOptions),
    readMetadata: (point, callOptions) => readPointMetadata(store, point, callOptions),
    acquireLease: (vmUuid, leaseOptions) => acquireLease(store, vmUuid, clock, leaseOptions),
    inspectLease: (vmUuid, callOptions) => inspectLease(store, vmUuid, clock, callOptions),
    inspectUnfinished: (vmUuid, callOptions) => readUnfinished(store, vmUuid, callOptions),
    remove: (point, removeOptions) => removePoint(store, point, clock, removeOptions),
    async begin(vmUuid, type, beginOptions = {}) {
      cleared ??= clearAbandoned(store);
      await cleared;
      return beginPoint(store, vmUuid, type, clock, beginOptions);
    },
    planPrune: (policy, planOptions) => planPrune(store, id, policy, { clock, ...planOptions }),
    prune: (plan, pruneOptions) => prune(store, id, plan, { clock, ...pruneOptions }),
    verify: (what, verifyOptions) => verifyPoints(store, what, { clock, ...verifyOptions }),
  };
  return shownAs(repository, 'Repository', () => ({ id, store: store.label }));
}

async function clearAbandoned(store: Store): Promise<void> {
  try {
    const removed = await store.removeAbandoned();
    if (removed.length > 0) log.debug('removed abandoned files', { store: store.label, removed });
  } catch (error) {
    // Rubbish that cannot be removed must not stop a backup: the store says so itself if it cannot be written to.
    if (!(error instanceof BackupError) || error.code !== 'STORE_IO') throw error;
    log.debug('abandoned files are left', { store: store.label, message: error.message });
  }
}

async function createRepository(store: Store, options: OpenRepositoryOptions): Promise<RepositoryFile> {
  const { names } = await store.list('', options);
  if (names.length > 0 && !names.includes(REPOSITORY_FILE)) {
    throw new BackupError(
      'REPOSITORY_INVALID',
      `${store.label}: expected a repository or an empty store, got ${names[0]} and no ${REPOSITORY_FILE}: not ours`,
      { facts: { store: store.label, found: names[0] } },
    );
  }
  if (options.create === false && names.length === 0) {
    throw new BackupError('REPOSITORY_MISSING', `${store.label}: there is no repository`, {
      facts: { store: store.label },
    });
  }
  const made: RepositoryFile = { format: MANIFEST_FORMAT, id: randomUUID() };
  try {
    await store.write(REPOSITORY_FILE, encodeSealed(made), options);
    return made;
  } catch (error) {
    if (!(error instanceof BackupError) || error.code !== 'STORE_EXISTS') throw error;
    const theirs = await readRepositoryFile(store, options); // another process was first
    if (theirs === undefined) throw error;
    return theirs;
  }
}

async function readRepositoryFile(store: Store, { signal }: CallOptions): Promise<RepositoryFile | undefined> {
  if ((await store.size(REPOSITORY_FILE, { signal })) === undefined) return undefined;
  const bytes = await readWhole(store, REPOSITORY_FILE, LONGEST, { signal });
  try {
    const value = parseJson(bytes);
    refuseNewer(value, `${store.label}: ${REPOSITORY_FILE}`);
    checkSeal(bytes);
    return repositoryFile(value, '');
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    throw new BackupError('REPOSITORY_INVALID', `${store.label}: ${REPOSITORY_FILE}: ${error.message}`, {
      facts: { store: store.label, file: REPOSITORY_FILE, field: error.field },
    });
  }
}
