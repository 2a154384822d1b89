import { createHash, randomUUID } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import * as nodeFs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { directoryStore } from '../../../src/store/index.ts';

type FileSystem = NonNullable<NonNullable<Parameters<typeof directoryStore>[1]>['fs']>;

/** A file, whatever names it has. */
interface Inode {
  readonly id: string;
}

/** What a folder goes through, in the order in which it was asked for. */
type Entry =
  | { readonly kind: 'add'; readonly name: string; readonly inode: Inode }
  | { readonly kind: 'folder'; readonly name: string }
  | { readonly kind: 'remove'; readonly name: string };

type Step =
  | { readonly kind: 'entry'; readonly folder: string; readonly entry: Entry }
  | { readonly kind: 'sync-folder'; readonly folder: string }
  | { readonly kind: 'sync-file'; readonly inode: Inode; readonly content: string }
  | { readonly kind: 'told'; readonly what: string };

/** What may lie on a disk after a crash. */
export interface CrashState {
  /** Says how it came about, for a failed test. */
  readonly label: string;
  /** What had been told to be done before the crash. */
  readonly told: readonly string[];
  /** Makes it: a folder like the one that was recorded. Files are hard links: write none in place. */
  build(folder: string): void;
}

export interface Recorder {
  /** Works on a real folder and remembers every step that a crash may cut off. */
  readonly fs: FileSystem;
  /** Notes that somebody was told that something is done, and so may rely on it. */
  tell(what: string): void;
  /** How many steps there were so far. */
  readonly steps: number;
  /** Each step as text, for a failed test. */
  describe(): string[];
  /**
   * The states that a power cut after any step from `from` on may leave; where one moment has more than `most`, as many of
   * them chosen by `random` (0 up to 1).
   */
  states(from: number, most: number, random: () => number): Generator<CrashState, void>;
}

/**
 * A model of a file system with a journal, for what power loss may leave of the folder `root`:
 *
 * - The bytes of a file are durable as they were at its last `sync` or `datasync`; without one it may have no bytes, or half
 *   of them, or as many zeros.
 * - Folders change in the order asked for; a `sync` of the folder makes all changes so far durable, and of later ones any
 *   number from the first on may be. Folders are independent of one another, even in a rename from one into another.
 * - A rename takes the place of a name at once.
 *
 * @param pool - an empty folder beside `root` on the same file system: the contents that files have had.
 */
export function recordFolder(root: string, pool: string): Recorder {
  const log: Step[] = [];
  const inodes = new Map<string, Inode>();

  const put = (bytes: Uint8Array): string => {
    const path = join(pool, createHash('sha256').update(bytes).digest('hex'));
    if (!existsSync(path)) writeFileSync(path, bytes);
    return path;
  };
  const note = (path: string, entry: Entry) => log.push({ kind: 'entry', folder: dirname(path), entry });
  const add = (path: string, inode: Inode) => {
    inodes.set(path, inode);
    note(path, { kind: 'add', name: basename(path), inode });
  };
  const drop = (path: string) => {
    if (inodes.delete(path)) note(path, { kind: 'remove', name: basename(path) });
  };

  const watched = (file: FileHandle, path: string, isFolder: boolean): FileHandle => {
    const sync = (work: () => Promise<void>) => async () => {
      await work();
      if (isFolder) log.push({ kind: 'sync-folder', folder: path });
      else log.push({ kind: 'sync-file', inode: inodes.get(path)!, content: put(readFileSync(path)) });
    };
    return new Proxy(file, {
      get(target, key) {
        if (key === 'sync') return sync(() => target.sync());
        if (key === 'datasync') return sync(() => target.datasync());
        const value: unknown = Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  };

  const fs: FileSystem = {
    ...nodeFs,
    mkdir: (async (path: string, options: Parameters<typeof nodeFs.mkdir>[1]) => {
      const made = await nodeFs.mkdir(path, options);
      note(path, { kind: 'folder', name: basename(path) });
      return made;
    }) as FileSystem['mkdir'],
    open: (async (path: string, flags: string | number, mode?: number) => {
      const file = await nodeFs.open(path, flags, mode);
      if (flags === 'wx') add(path, { id: randomUUID() });
      return watched(file, path, (await file.stat()).isDirectory());
    }) as FileSystem['open'],
    async link(from, to) {
      await nodeFs.link(from, to);
      add(String(to), inodes.get(String(from))!);
    },
    async rename(from, to) {
      await nodeFs.rename(from, to);
      add(String(to), inodes.get(String(from))!);
      drop(String(from));
    },
    async rm(path, options) {
      await nodeFs.rm(path, options);
      drop(String(path));
    },
    async unlink(path) {
      await nodeFs.unlink(path);
      drop(String(path));
    },
  };

  /** The folders as they may be after `count` steps: of each, how many of its changes have lasted. */
  function* choices(count: number, most: number, random: () => number): Generator<ReadonlyMap<string, Entry[]>, void> {
    const lasting = new Map<string, { sure: Entry[]; open: Entry[] }>();
    for (const step of log.slice(0, count)) {
      if (step.kind === 'entry') {
        const folder = lasting.get(step.folder) ?? { sure: [], open: [] };
        lasting.set(step.folder, folder);
        folder.open.push(step.entry);
      } else if (step.kind === 'sync-folder') {
        const folder = lasting.get(step.folder);
        if (folder !== undefined) folder.sure.push(...folder.open.splice(0));
      }
    }
    const folders = [...lasting];
    const total = folders.reduce((product, [, { open }]) => product * (open.length + 1), 1);
    for (let n = 0; n < Math.min(total, most); n++) {
      // All of them where they are few: n as a number whose digits say how much of each folder has lasted.
      let rest = total <= most ? n : Math.floor(random() * total);
      const chosen = new Map<string, Entry[]>();
      for (const [path, { sure, open }] of folders) {
        chosen.set(path, [...sure, ...open.slice(0, rest % (open.length + 1))]);
        rest = Math.floor(rest / (open.length + 1));
      }
      yield chosen;
    }
  }

  return {
    fs,
    get steps() {
      return log.length;
    },
    tell: (what) => log.push({ kind: 'told', what }),
    describe: () =>
      log.map((step) => {
        if (step.kind === 'told') return `told ${step.what}`;
        if (step.kind === 'sync-folder') return `sync ${step.folder}`;
        if (step.kind === 'sync-file') return `sync ${step.inode.id}`;
        return `${step.entry.kind} ${step.folder}/${step.entry.name}`;
      }),
    *states(from, most, random) {
      for (let count = from; count <= log.length; count++) {
        const before = log.slice(0, count);
        const told = before.flatMap((step) => (step.kind === 'told' ? [step.what] : []));
        const contents = new Map<Inode, string>();
        for (const step of before) if (step.kind === 'sync-file') contents.set(step.inode, step.content);
        const whole = new Map<Inode, string>();
        for (const step of log) if (step.kind === 'sync-file') whole.set(step.inode, step.content);
        for (const folders of choices(count, most, random)) {
          const torn = Math.floor(random() * 3);
          const contentOf = (inode: Inode): string => {
            const synced = contents.get(inode);
            if (synced !== undefined) return synced;
            const later = whole.get(inode);
            const bytes = later === undefined ? new Uint8Array(0) : readFileSync(later);
            return put(
              [bytes.subarray(0, 0), bytes.subarray(0, bytes.byteLength / 2), Buffer.alloc(bytes.byteLength)][torn]!,
            );
          };
          const build = (target: string) => {
            const make = (path: string, to: string) => {
              mkdirSync(to);
              const names = new Map<string, Entry>();
              for (const entry of folders.get(path) ?? []) {
                if (entry.kind === 'remove') names.delete(entry.name);
                else names.set(entry.name, entry);
              }
              for (const [name, entry] of names) {
                if (entry.kind === 'folder') make(join(path, name), join(to, name));
                else if (entry.kind === 'add') linkSync(contentOf(entry.inode), join(to, name));
              }
            };
            const hasRoot = (folders.get(dirname(root)) ?? []).some(({ name }) => name === basename(root));
            if (hasRoot) make(root, target);
          };
          yield { label: `after step ${count} of ${log.length}`, told, build };
        }
      }
    },
  };
}
