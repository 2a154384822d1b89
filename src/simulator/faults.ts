/** What can go wrong on demand, and how it is told. Handlers ask for their own by name. */
export interface FaultOptions {
  /**
   * Ends an export's connection after this many body bytes, without a word. Its task fails; with `taskSucceeds` the
   * host has done all it should, as when something between host and client cut the stream.
   */
  'export-cut': {
    /** In bytes of the body. */
    readonly after: number;
    /** Only for this path, for example `/export`. @defaultValue any */
    readonly path?: string;
    /** @defaultValue `false` */
    readonly taskSucceeds?: boolean;
  };
  /** Fails an export's work after this many body bytes: a second response in the body, and a failed task. */
  'export-500': {
    /** In bytes of the body. */
    readonly after: number;
    /** Only for this path, for example `/export`. @defaultValue any */
    readonly path?: string;
    /** The host's code. @defaultValue `VDI_IO_ERROR` */
    readonly code?: string;
    /** What the host gives with its code. @defaultValue none */
    readonly params?: readonly string[];
  };
  /** Sends this many bytes more (zeros) or fewer than an export has, and reports success all the same. */
  'export-length': {
    /** In bytes; below 0 for fewer. */
    readonly change: number;
    /** Only for this path, for example `/export`. @defaultValue any */
    readonly path?: string;
  };
  /** Puts a wrong checksum behind a chunk of an XVA: the one with this number, or the next. */
  'export-checksum': {
    /** Its number in the archive. @defaultValue the next */
    readonly chunk?: number;
  };
  /** Sends a chunk of no bytes before the next one of an XVA, as a host does when nothing came for five seconds. */
  'zero-length-chunk': Record<never, never>;
  /** Fails an import after this many body bytes were read. */
  'import-error': {
    /** In bytes of the body. */
    readonly after: number;
    /** Only for this path, for example `/export`. @defaultValue any */
    readonly path?: string;
    /** The host's code. @defaultValue `VDI_IO_ERROR` */
    readonly code?: string;
    /** What the host gives with its code. @defaultValue none */
    readonly params?: readonly string[];
  };
  /** Answers a call with an error. `method` as called, for example `VM.snapshot` (also for its `Async` form). */
  'call-error': {
    /** With its class. */
    readonly method: string;
    /** The host's code. */
    readonly code: string;
    /** What the host gives with its code. @defaultValue none */
    readonly params?: readonly string[];
  };
  /**
   * Closes the connection instead of answering a call (`method`, `Async.` included) or a request (`path`): before the
   * work is done, or `after` it.
   */
  'drop-connection': {
    /** With its class. @defaultValue none */
    readonly method?: string;
    /** @defaultValue none */
    readonly path?: string;
    /** @defaultValue `before` */
    readonly when?: 'before' | 'after';
  };
  /**
   * `VDI.list_changed_blocks` leaves changes out: this many of the blocks that changed, the first ones.
   * @defaultValue `blocks`: all of them
   */
  'bitmap-lies': {
    /** How many. @defaultValue all of them */
    readonly blocks?: number;
  };
  /** The garbage collector does not come when a disk is gone: chains stay as long as they are. */
  'coalesce-not-done': Record<never, never>;
  /** Sends a request elsewhere: 302 to `https://<address><path and query>`. */
  redirect: {
    /** The path of the request. */
    readonly path: string;
    /** Where it is sent; may have a port. */
    readonly address: string;
  };
  /**
   * Fails `VM.snapshot_with_quiesce` where the guest could do it. `halfMade` says what its tools leave behind: the
   * snapshot of the VM under their name, or loose snapshots of its disks.
   * @defaultValue `code`: `VM_SNAPSHOT_WITH_QUIESCE_FAILED`
   */
  quiesce: {
    /** The host's code. @defaultValue `VM_SNAPSHOT_WITH_QUIESCE_FAILED` */
    readonly code?: string;
    /** What the host gives with its code. @defaultValue none */
    readonly params?: readonly string[];
    /** @defaultValue nothing is left */
    readonly halfMade?: 'vm' | 'disks';
  };
  /** Closes NBD connections before the greeting. */
  'nbd-refuse': Record<never, never>;
  /** Names a port to a client that asks for the NBD server at which nothing listens, as behind a firewall that refuses. */
  'nbd-closed': Record<never, never>;
  /** Cuts an NBD connection after this many bytes were read over it. */
  'nbd-cut': {
    /** In bytes of data. */
    readonly after: number;
  };
  /**
   * Answers `VDI_IN_USE` to an operation on a disk (`vdi`: reference or uuid; any if left out): `destroy`,
   * `data_destroy`, `snapshot`, `list_changed_blocks` …; by default `attach`, which transfers and NBD do.
   */
  'vdi-in-use': {
    /** Reference or uuid. @defaultValue any */
    readonly vdi?: string;
    /** @defaultValue `attach` */
    readonly operation?: string;
  };
  /** Forgets the caller's session at its next call, or at the next one of `method`. */
  'session-lost': {
    /** With its class. @defaultValue any */
    readonly method?: string;
  };
  /** Stops sending (export) or reading (import) after this many bytes, until the task is cancelled. */
  stall: {
    /** In bytes of the body. */
    readonly after: number;
    /** Only for this path, for example `/export`. @defaultValue any */
    readonly path?: string;
  };
}

/** The name of a fault. */
export type FaultName = keyof FaultOptions;

/** How often a fault strikes. */
export interface FaultTimes {
  /** @defaultValue `1` */
  readonly times?: number;
}

/** Options of a fault, as an argument: those that need none may go without. */
export type FaultArguments<N extends FaultName> =
  Record<never, never> extends FaultOptions[N]
    ? [options?: FaultOptions[N] & FaultTimes]
    : [options: FaultOptions[N] & FaultTimes];

/** What each fault cannot do without; of several names in one entry it is one of them. */
const NEEDS: Readonly<Record<FaultName, readonly (readonly string[])[]>> = {
  'export-cut': [['after']],
  'export-500': [['after']],
  'export-length': [['change']],
  'export-checksum': [],
  'zero-length-chunk': [],
  'import-error': [['after']],
  'call-error': [['method'], ['code']],
  'drop-connection': [['method', 'path']],
  'bitmap-lies': [],
  'coalesce-not-done': [],
  redirect: [['path'], ['address']],
  quiesce: [],
  'nbd-refuse': [],
  'nbd-closed': [],
  'nbd-cut': [['after']],
  'vdi-in-use': [],
  'session-lost': [],
  stall: [['after']],
};

/** The faults armed at the moment. */
export interface Faults {
  /**
   * Arms a fault; the function returned disarms it.
   *
   * @throws TypeError that names what is missing: a fault that can never strike helps no test.
   */
  arm<N extends FaultName>(name: N, ...options: FaultArguments<N>): () => void;
  /** The first fault of that name that fits, used up by one; `undefined` if there is none. */
  take<N extends FaultName>(name: N, fits?: (options: FaultOptions[N]) => boolean): FaultOptions[N] | undefined;
  /** Disarms everything. */
  clear(): void;
}

/** An empty set of faults. */
export function createFaults(): Faults {
  type Armed = { readonly name: FaultName; readonly options: FaultOptions[FaultName]; left: number };
  const armed = new Set<Armed>();
  return {
    arm(name, ...[given]) {
      const { times = 1, ...options } = given ?? {};
      assertKnown(name, options);
      const entry: Armed = { name, options: options as unknown as FaultOptions[typeof name], left: times };
      armed.add(entry);
      return () => armed.delete(entry);
    },
    take(name, fits = () => true) {
      for (const entry of armed) {
        const options = entry.options as FaultOptions[typeof name];
        if (entry.name !== name || !fits(options)) continue;
        entry.left -= 1;
        if (entry.left <= 0) armed.delete(entry);
        return options;
      }
      return undefined;
    },
    clear: () => armed.clear(),
  };
}

/** For callers without a compiler. */
function assertKnown(name: FaultName, options: object): void {
  if (!Object.hasOwn(NEEDS, name)) {
    throw new TypeError(`no fault is called ${JSON.stringify(name)}: there are ${Object.keys(NEEDS).join(', ')}`);
  }
  for (const anyOf of NEEDS[name]) {
    if (!anyOf.some((option) => option in options)) {
      throw new TypeError(`the fault ${name} needs the option ${anyOf.join(' or ')}`);
    }
  }
}
