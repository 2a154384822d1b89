import type { CallOptions } from '../core/index.ts';
import type { ByteSource, SizedStream } from '../disk/index.ts';

export interface WriteOptions extends CallOptions {
  /**
   * Readable by the owner only: the bytes hold secrets (vTPM contents, UEFI variables).
   * @defaultValue `false`
   */
  readonly secret?: boolean | undefined;
  /**
   * Takes the place of what has the name, at once: who opens it gets the old or the new, whole, and who has it open keeps
   * the old.
   * @defaultValue `false`: a name that is taken is `STORE_EXISTS`
   */
  readonly replace?: boolean | undefined;
  /**
   * Told how long this thread hashed, in milliseconds, as often as the store likes: a run's report names the slow side by it. A
   * store need not tell. Must not throw.
   * @defaultValue nobody is told
   */
  readonly onHashed?: ((ms: number) => void) | undefined;
}

/** What was published under a name. */
export interface Written {
  /** In bytes. */
  readonly length: number;
  /** Lower-case hexadecimal, over exactly the bytes that can be read back. */
  readonly sha256: string;
}

export interface StageOptions extends CallOptions {
  /**
   * Finds the file of this key again, also in a later process, until it is published, discarded, or abandoned. One process at
   * a time uses a key: the caller sees to that. Lower-case letters, digits, `-`, `_` and `.`, like a part of a name.
   * @defaultValue a new file that nobody else can come to
   */
  readonly key?: string | undefined;
}

/** A seekable file that has no name in the store yet. */
export interface StagedFile {
  /** A path on this machine where the file is to be made; nothing exists there yet, unless a `key` has found it. */
  readonly path: string;
  /** Gives the finished file its name, durably, and hashes it on the way. `STORE_EXISTS` where the name is taken. */
  publish(name: string, options?: WriteOptions): Promise<Written>;
  /** Removes it; does nothing after `publish`. */
  discard(): Promise<void>;
}

/** What a listing found. */
export interface Listing {
  /** Full names, sorted. */
  readonly names: readonly string[];
  /** `false` where the store cannot promise that this is all: nothing may be deleted on such a listing. */
  readonly complete: boolean;
}

/**
 * Named bytes, written once unless `replace` says otherwise. Names are paths with `/`, of lower-case letters, digits,
 * `-`, `_` and `.`, no part beginning with a dot; anything else is `STORE_NAME_INVALID`. A name appears whole and
 * durable, or not at all.
 */
export interface Store extends AsyncDisposable {
  /** For messages, without credentials. */
  readonly label: string;
  /**
   * Writes a new object. `STORE_EXISTS` where the name is taken; a stream that fails leaves nothing behind. The source may
   * use the memory of a chunk again once the next one is asked for: copy what is kept longer.
   */
  write(
    name: string,
    from: Uint8Array | SizedStream | AsyncIterable<Uint8Array>,
    options?: WriteOptions,
  ): Promise<Written>;
  /** Random access to an object; `STORE_NOT_FOUND` where there is none. */
  open(name: string, options?: CallOptions): Promise<ByteSource>;
  /**
   * All of an object, `undefined` where it is longer than `longest` bytes. Only of stores that have a quicker way than `open`,
   * which is used for the others; `STORE_NOT_FOUND` where there is none.
   */
  readSmall?(name: string, longest: number, options?: CallOptions): Promise<Uint8Array | undefined>;
  /**
   * The same of many objects, in the order of their names; `undefined` also where there is none, or it cannot be read: ask
   * `open`. Only of stores that have a quicker way than one after the other.
   */
  readMany?(names: readonly string[], longest: number, options?: CallOptions): AsyncIterable<Uint8Array | undefined>;
  /** The size in bytes, or `undefined` where the name does not exist. */
  size(name: string, options?: CallOptions): Promise<number | undefined>;
  /** All names that begin with `prefix`, which ends with `/` or is empty. */
  list(prefix: string, options?: CallOptions): Promise<Listing>;
  /** Removes an object, durably; does nothing where there is none. */
  remove(name: string, options?: CallOptions): Promise<void>;
  /**
   * Makes durable what there is below `prefix`, and that what was removed is gone: a writer that was killed may not have come
   * to it. A store where nothing is ever seen before it is durable needs none.
   */
  settle?(prefix: string, options?: CallOptions): Promise<void>;
  /** A place for a file that must be written out of order before it can be published. */
  stage(options?: StageOptions): Promise<StagedFile>;
  /**
   * Removes what writers that died left without a name: temporary files that nobody has written to for a while and
   * whose process is not known to live. A live writer loses nothing. What was staged under a key is left for a
   * week more: then its age alone decides.
   *
   * @returns what was removed, for a log.
   */
  removeAbandoned(options?: AbandonedOptions): Promise<readonly string[]>;
  /** Gives up what the store holds open. Objects that are open stay so. */
  close(): Promise<void>;
}

/** After a day without a byte a temporary file may be called abandoned, in milliseconds. */
export const DEFAULT_ABANDONED_AFTER_MS = 24 * 60 * 60 * 1000;

/** So much longer a file that was staged under a key may lie untouched, in milliseconds: a week. */
export const KEPT_FOR_MS = 7 * DEFAULT_ABANDONED_AFTER_MS;

/** What counts as abandoned. */
export interface AbandonedOptions {
  /**
   * How long nobody has written to it, in milliseconds.
   * @defaultValue one day
   */
  readonly olderThanMs?: number | undefined;
}
