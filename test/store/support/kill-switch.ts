import { AsyncLocalStorage, createHook } from 'node:async_hooks';
import nodeFs, { constants, existsSync, writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import filePromises from 'node:fs/promises';

/** What this process did to files. */
export interface KillSwitch {
  /**
   * The steps that are made to change something, in their order: at each of them the process can be killed. `idle` are those
   * that change nothing that another process sees: a folder that is there is made again, a file is made durable.
   */
  readonly steps: readonly string[];
  /** Requests to the file system that were made past the functions that are watched. */
  readonly unseen: number;
}

type AnyFunction = (...args: readonly unknown[]) => unknown;

const CHANGING: ReadonlySet<string> = new Set([
  ...[
    'appendFile',
    'chmod',
    'chown',
    'copyFile',
    'cp',
    'lchown',
    'link',
    'lutimes',
    'mkdir',
    'mkdtemp',
    'rename',
    'rm',
  ],
  ...['rmdir', 'symlink', 'truncate', 'unlink', 'utimes', 'writeFile'],
]);
const CHANGING_A_FILE: ReadonlySet<string> = new Set([
  ...['appendFile', 'chmod', 'chown', 'datasync', 'sync', 'truncate', 'utimes', 'write', 'writeFile', 'writev'],
]);
const WRITING = constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC;
/** Of `node:fs`, what the library uses to read. */
const READING = ['close', 'fstat', 'open', 'read'] as const;

/**
 * Lets this process die by SIGKILL immediately before the `n`-th step (counted from 1) that changes the file system. A write
 * counts twice: before it, and when half of it is written. To be called before anything else uses files.
 */
export async function installKillSwitch(n: number): Promise<KillSwitch> {
  const steps: string[] = [];
  const watched = new AsyncLocalStorage<true>();
  let unseen = 0;
  createHook({
    init(_, type) {
      if (type.startsWith('FSREQ') && watched.getStore() === undefined) unseen++;
    },
  }).enable();

  const step = (what: string, last: () => void = () => {}) => {
    steps.push(what);
    if (steps.length !== n) return;
    last();
    process.kill(process.pid, 'SIGKILL');
    throw new Error('alive after SIGKILL');
  };
  const wrap = (object: object, key: string, before: (self: unknown, args: readonly unknown[]) => void) => {
    const original = Reflect.get(object, key) as unknown;
    if (typeof original !== 'function') return;
    const wrapped = function (this: unknown, ...args: unknown[]): unknown {
      before(this, args);
      return watched.run(true, () => (original as AnyFunction).apply(this, args));
    };
    Reflect.defineProperty(object, key, { value: wrapped, writable: true, configurable: true, enumerable: true });
  };

  for (const key of Object.keys(filePromises)) {
    wrap(filePromises, key, (_, args) => {
      if (!CHANGING.has(key) && !(key === 'open' && opensToWrite(args[1]))) return;
      const isIdle = key === 'mkdir' && existsSync(String(args[0]));
      step([isIdle ? 'idle mkdir' : key, ...args.filter((arg) => typeof arg === 'string')].join(' '));
    });
  }
  for (const key of READING) {
    wrap(nodeFs, key, (_, args) => {
      if (key === 'open' && opensToWrite(args[1])) step(`open ${String(args[0])}`);
    });
  }
  const handle = await filePromises.open(process.execPath);
  const prototype = Object.getPrototypeOf(handle) as object;
  await handle.close();
  for (const key of Object.getOwnPropertyNames(prototype)) {
    if (key === 'constructor' || key === 'fd') continue;
    wrap(prototype, key, (self, args) => {
      if (!CHANGING_A_FILE.has(key)) return;
      const isIdle = key === 'sync' || key === 'datasync';
      step(`${isIdle ? 'idle ' : ''}${key} of ${(self as FileHandle).fd}`);
      if (key === 'write')
        step(`half a write of ${(self as FileHandle).fd}`, () => writeHalf(self as FileHandle, args));
    });
  }
  return {
    steps,
    get unseen() {
      return unseen;
    },
  };
}

function opensToWrite(flags: unknown): boolean {
  return typeof flags === 'number' ? (flags & WRITING) !== 0 : flags !== undefined && flags !== 'r';
}

function writeHalf({ fd }: FileHandle, [data, offset, length, position]: readonly unknown[]): void {
  const half = Math.floor((length as number) / 2);
  writeSync(fd, data as Uint8Array, offset as number, half, position as number | undefined);
}
