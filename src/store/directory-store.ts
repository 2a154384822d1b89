import { constants } from 'node:fs';
import * as nodeFs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type ByteSource, fileSource, readBytes } from '../bytes/index.ts';
import { BackupError, type Clock, createLog, systemClock } from '../core/index.ts';
import {
  type FileCalls,
  type FileSystem,
  findFolder,
  makeFolders,
  makeRoot,
  syncFolder,
  syncTree,
} from './durable-folder.ts';
import { hashFile, writeHashed } from './hashed-write.ts';
import { intake } from './intake.ts';
import { checkKey, checkName, checkPrefix } from './names.ts';
import { exists, publishFile, replaceFile } from './publish-file.ts';
import { readManyFiles } from './read-many-files.ts';
import { readSmallFile } from './read-small-file.ts';
import type { Listing, StagedFile, StageOptions, Store, WriteOptions, Written } from './store.ts';
import { DEFAULT_ABANDONED_AFTER_MS } from './store.ts';
import { asStoreError, isMissing, nameMissing, nameTaken, storeIo, systemCode } from './store-error.ts';
import { claimFileName, claimTempName, keptFileName, releaseTempName, removeAbandonedFiles } from './temp-files.ts';
import { walkNames } from './walk-names.ts';

const log = createLog('store');

/** What is being written lies here, in a folder for the owner only, on the file system it will be published on. */
const TEMP = '.tmp';

/** So long a folder is not looked at again, when many of its files are read one after another, in milliseconds. */
const FRESH_MS = 1000;

/** How {@link directoryStore} works. */
export interface DirectoryStoreOptions {
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
  /** @internal */
  readonly fs?: FileSystem | undefined;
}

/**
 * A folder as a store: an object is a file, its name the path below the folder. The folder is made by the first write;
 * until then it reads as empty. Files of other names (capitals, a dot in front) are not seen. Symbolic links inside
 * the folder are not followed: a listing that meets one says that it is not complete. `remove` leaves empty folders.
 *
 * An object is written to a temporary file in `.tmp/`, hashed on the way, made durable, then published by a hard link,
 * or by a rename under a claim where there are no hard links; the claim of a process that was killed is void after a minute.
 * What it leaves in `.tmp/` has no name in the store; `removeAbandoned` clears it.
 *
 * @throws BackupError `STORE_IO` where `path` is something else than a folder.
 */
export async function directoryStore(path: string, options: DirectoryStoreOptions = {}): Promise<Store> {
  const store = new DirectoryStore(
    resolve(path),
    options.fs ?? { ...nodeFs, readSmallFile, readManyFiles },
    options.clock ?? systemClock,
  );
  await store.checkRoot();
  return store;
}

class DirectoryStore implements Store {
  readonly label: string;
  readonly #fs: FileCalls;
  readonly #clock: Clock;
  /** The folder's real path, once it is there. */
  #root: string | undefined;
  /** The folder that was last read from: no symbolic link led there. */
  #lastFound: { readonly name: string; readonly path: string; readonly at: number } | undefined;
  /** Folders that a power cut will not take. */
  readonly #durable = new Set<string>();

  constructor(path: string, fs: FileCalls, clock: Clock) {
    this.label = path;
    this.#fs = fs;
    this.#clock = clock;
  }

  async checkRoot(): Promise<void> {
    const root = await this.#findRoot();
    if (root === undefined) return;
    const stat = await storeIo(this.#action('open', 'the store'), () => this.#fs.lstat(root));
    if (!stat.isDirectory()) throw new BackupError('STORE_IO', `${this.label} is not a folder`);
  }

  async write(
    name: string,
    from: Parameters<Store['write']>[1],
    { signal, secret = false, replace = false, onHashed }: WriteOptions = {},
  ): Promise<Written> {
    checkName(name);
    signal?.throwIfAborted();
    const action = this.#action('write', name);
    // Asked before the bytes are moved; publishing asks again, in one step.
    if (!replace && (await this.size(name)) !== undefined) throw nameTaken(this.label, name);
    return this.#withTemp(name, async (temp) => {
      const file = await storeIo(action, () => this.#fs.open(temp, 'wx', secret ? 0o600 : 0o644));
      let written: Written;
      try {
        written = await writeHashed(file, intake(name, from, signal), action, { onHashed });
        await storeIo(action, () => file.datasync());
      } finally {
        await storeIo(action, () => file.close());
      }
      signal?.throwIfAborted();
      await this.#publish(temp, name, replace);
      return written;
    });
  }

  async open(name: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<ByteSource> {
    checkName(name);
    signal?.throwIfAborted();
    const action = this.#action('read', name);
    return storeIo(action, async () => {
      const path = await this.#find(name);
      if (path === undefined) throw nameMissing(this.label, name);
      const file = await this.#fs.open(path, constants.O_RDONLY | NO_FOLLOW).catch((error: unknown) => {
        throw isMissing(error) ? nameMissing(this.label, name, error) : error;
      });
      try {
        const stat = await file.stat();
        if (!stat.isFile()) throw nameMissing(this.label, name);
        const source = fileSource(file, stat.size, path);
        return { ...source, readInto: (...args) => storeIo(action, () => source.readInto(...args)) };
      } catch (error) {
        await file.close();
        throw error;
      }
    });
  }

  async readSmall(
    name: string,
    longest: number,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<Uint8Array | undefined> {
    checkName(name);
    signal?.throwIfAborted();
    const { readSmallFile } = this.#fs;
    if (readSmallFile === undefined) {
      await using source = await this.open(name, { signal });
      return source.size > longest ? undefined : await readBytes(source, 0, source.size, { signal });
    }
    return storeIo(this.#action('read', name), async () => {
      const path = await this.#findForReading(name);
      if (path === undefined) throw nameMissing(this.label, name);
      try {
        return await readSmallFile(path, NO_FOLLOW, longest);
      } catch (error) {
        throw isMissing(error) ? nameMissing(this.label, name, error) : error;
      }
    });
  }

  async *readMany(
    names: readonly string[],
    longest: number,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<Uint8Array | undefined, void> {
    signal?.throwIfAborted();
    names.forEach(checkName);
    const { readManyFiles: read } = this.#fs;
    if (read === undefined) {
      for (const _ of names) yield undefined;
      return;
    }
    /** Folders that no symbolic link leads to, or that are not there. */
    const folders = new Map<string, string | undefined>();
    const paths: string[] = [];
    for (const name of names) {
      const end = name.lastIndexOf('/');
      const folder = name.slice(0, Math.max(end, 0));
      if (!folders.has(folder)) {
        signal?.throwIfAborted();
        const parts = folder === '' ? [] : folder.split('/');
        folders.set(folder, await storeIo(this.#action('read', name), () => this.#findFolder(parts)));
      }
      const path = folders.get(folder);
      paths.push(path === undefined ? '' : `${path}/${name.slice(end + 1)}`); // no file has the path ''
    }
    for await (const bytes of read(paths, constants.O_RDONLY | NO_FOLLOW, longest)) {
      signal?.throwIfAborted();
      yield bytes;
    }
  }

  async size(name: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<number | undefined> {
    checkName(name);
    signal?.throwIfAborted();
    return storeIo(this.#action('look at', name), async () => {
      const path = await this.#find(name);
      if (path === undefined) return undefined;
      try {
        const stat = await this.#fs.lstat(path);
        return stat.isFile() ? stat.size : undefined;
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }

  async list(prefix: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Listing> {
    checkPrefix(prefix);
    signal?.throwIfAborted();
    return storeIo(this.#action('list', prefix === '' ? 'the store' : prefix), async () => {
      const names: string[] = [];
      const folder = await this.#findFolder(prefix.split('/').slice(0, -1));
      const complete = folder === undefined || (await walkNames(this.#fs, folder, prefix, names, signal));
      return { names: names.sort(), complete };
    });
  }

  async remove(name: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    checkName(name);
    signal?.throwIfAborted();
    await storeIo(this.#action('remove', name), async () => {
      const path = await this.#find(name);
      if (path === undefined) return;
      if ((await this.size(name)) !== undefined) await this.#fs.rm(path, { force: true });
      // What is removed after this must not be gone while this is back, when the power fails; one that is not there may have
      // been removed a moment ago, by someone who died.
      await syncFolder(this.#fs, dirname(path));
    });
  }

  async settle(prefix: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    checkPrefix(prefix);
    signal?.throwIfAborted();
    await storeIo(this.#action('settle', prefix === '' ? 'the store' : prefix), async () => {
      const parts = prefix.split('/').slice(0, -1);
      const folder = await this.#findFolder(parts);
      if (folder === undefined) return;
      await makeFolders(this.#fs, this.#root!, parts, this.#durable);
      await syncTree(this.#fs, folder);
    });
  }

  async stage({ key, signal }: StageOptions = {}): Promise<StagedFile> {
    if (key !== undefined) checkKey(key);
    signal?.throwIfAborted();
    const temp = await this.#tempPath('a staged file', key === undefined ? undefined : keptFileName(key));
    return {
      path: temp.path,
      publish: async (name, options = {}) => {
        checkName(name);
        const written = await this.#hashStaged(temp.path, name, options);
        options.signal?.throwIfAborted();
        await this.#publish(temp.path, name, options.replace);
        releaseTempName(temp.name);
        return written;
      },
      discard: async () => {
        await storeIo(this.#action('discard', 'a staged file'), () => this.#fs.rm(temp.path, { force: true }));
        releaseTempName(temp.name);
      },
    };
  }

  async removeAbandoned({ olderThanMs = DEFAULT_ABANDONED_AFTER_MS } = {}): Promise<readonly string[]> {
    const root = await this.#findRoot();
    if (root === undefined) return [];
    return storeIo(this.#action('clear', TEMP), () =>
      removeAbandonedFiles(this.#fs, join(root, TEMP), this.#clock.now() - olderThanMs),
    );
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  #action(action: string, name: string) {
    return { label: this.label, name, action };
  }

  async #findRoot(): Promise<string | undefined> {
    if (this.#root !== undefined) return this.#root;
    try {
      this.#root = await this.#fs.realpath(this.label);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw asStoreError(error, this.#action('open', 'the store'));
    }
    return this.#root;
  }

  /** Makes the folder, unless someone has: what they then put into it is made when it is durable. */
  async #makeRoot(): Promise<string> {
    const temp = this.#root && join(this.#root, TEMP);
    if (temp === undefined || !(this.#durable.has(temp) || (await exists(this.#fs, temp)))) {
      this.#root = await makeRoot(this.#fs, this.label);
    }
    return this.#root!;
  }

  /** The path a name has, where its folder is there. */
  async #find(name: string): Promise<string | undefined> {
    const parts = name.split('/');
    const folder = await this.#findFolder(parts.slice(0, -1));
    return folder === undefined ? undefined : join(folder, parts.at(-1)!);
  }

  /** The same, for one of many files of a folder: for a moment it is taken to be what it was. */
  async #findForReading(name: string): Promise<string | undefined> {
    const folder = name.slice(0, name.lastIndexOf('/'));
    const now = this.#clock.now();
    const isFresh =
      this.#lastFound?.name === folder && now - this.#lastFound.at < FRESH_MS && now >= this.#lastFound.at;
    if (isFresh) return join(this.#lastFound!.path, name.slice(folder.length + 1));
    const path = await this.#find(name);
    if (path !== undefined) this.#lastFound = { name: folder, path: dirname(path), at: now };
    return path;
  }

  async #findFolder(parts: readonly string[]): Promise<string | undefined> {
    const root = await this.#findRoot();
    if (root === undefined) return undefined;
    try {
      return await findFolder(this.#fs, root, parts);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #tempPath(name: string, kept?: string): Promise<{ name: string; path: string }> {
    const temp = kept ?? claimTempName(this.#clock);
    try {
      return await storeIo(this.#action('write', name), async () => {
        const root = await this.#makeRoot();
        const folder = await makeFolders(this.#fs, root, [TEMP], this.#durable, 0o700);
        return { name: temp, path: join(folder, temp) };
      });
    } catch (error) {
      releaseTempName(temp);
      throw error;
    }
  }

  async #withTemp<T>(name: string, work: (path: string) => Promise<T>): Promise<T> {
    const temp = await this.#tempPath(name);
    try {
      return await work(temp.path);
    } catch (error) {
      // The first failure counts; what cannot be removed now has no name in the store, and `removeAbandoned` takes it.
      await this.#fs.rm(temp.path, { force: true }).catch((left: unknown) => log.debug('left behind', { temp, left }));
      throw error;
    } finally {
      releaseTempName(temp.name);
    }
  }

  async #publish(temp: string, name: string, replace = false): Promise<void> {
    const parts = name.split('/');
    const published = await storeIo(this.#action('publish', name), async () => {
      const root = this.#root!; // a temporary file lies in it
      const folder = await makeFolders(this.#fs, root, parts.slice(0, -1), this.#durable);
      const target = join(folder, parts.at(-1)!);
      if (replace) {
        await replaceFile(this.#fs, temp, target);
        return true;
      }
      return publishFile(this.#fs, temp, target, join(root, TEMP, claimFileName(name)));
    });
    if (!published) throw nameTaken(this.label, name);
  }

  async #hashStaged(temp: string, name: string, { signal, secret = false, onHashed }: WriteOptions): Promise<Written> {
    signal?.throwIfAborted();
    return storeIo(this.#action('publish', name), async () => {
      if (secret) await this.#fs.chmod(temp, 0o600);
      const file = await this.#fs.open(temp, constants.O_RDONLY | NO_FOLLOW);
      try {
        const written = await hashFile(file, { signal, onHashed });
        await file.sync();
        return written;
      } finally {
        await file.close();
      }
    });
  }
}

/** Windows has neither; a name that is a pipe must not make us wait for its writer. */
const NO_FOLLOW = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
