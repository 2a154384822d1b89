import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as nodeFs from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { directoryStore, type Store } from '../../src/store/index.ts';
import { storeContract } from './contract.ts';

type FileSystem = NonNullable<NonNullable<Parameters<typeof directoryStore>[1]>['fs']>;

const bytesOf = (text: string) => new TextEncoder().encode(text);
const failure = (code: string, syscall = 'write') => Object.assign(new Error(`${code}: injected`), { code, syscall });

let folder: string;
beforeEach(async () => {
  folder = await nodeFs.realpath(await nodeFs.mkdtemp(join(tmpdir(), 'store-test-')));
});
afterEach(() => nodeFs.rm(folder, { recursive: true, force: true }));

async function leftovers(root: string): Promise<string[]> {
  return nodeFs.readdir(join(root, '.tmp')).catch(() => []);
}

async function inFolder(fs?: FileSystem) {
  const own = await nodeFs.mkdtemp(join(tmpdir(), 'store-contract-'));
  return {
    store: await directoryStore(join(own, 'made', 'by-first-write'), { fs }),
    expectNoLeftovers: async () => expect(await leftovers(join(own, 'made', 'by-first-write'))).toEqual([]),
    dispose: () => nodeFs.rm(own, { recursive: true, force: true }),
  };
}

const withoutLinks: FileSystem = {
  ...nodeFs,
  link: async () => {
    throw failure('EPERM', 'link');
  },
};

storeContract('directoryStore', () => inFolder());
storeContract('directoryStore without hard links', () => inFolder(withoutLinks));

test('makes its folder with the first write, not before', async () => {
  const path = join(folder, 'a', 'b');
  const store = await directoryStore(path);
  expect(await store.list('')).toEqual({ names: [], complete: true });
  await expect(nodeFs.lstat(join(folder, 'a'))).rejects.toMatchObject({ code: 'ENOENT' });
  await store.write('x/y', bytesOf('z'));
  expect(await nodeFs.readFile(join(path, 'x', 'y'), 'utf8')).toBe('z');
});

test('refuses a path that is a file', async () => {
  await nodeFs.writeFile(join(folder, 'file'), '');
  await expect(directoryStore(join(folder, 'file'))).rejects.toMatchObject({ code: 'STORE_IO' });
});

test.skipIf(process.platform === 'win32')('secrets are for the owner only, while they are written, too', async () => {
  const store = await directoryStore(folder);
  const modeOf = async (path: string) => (await nodeFs.stat(join(folder, path))).mode & 0o777;
  async function* looking() {
    yield bytesOf('secret');
    expect(await modeOf('.tmp')).toBe(0o700);
    for (const temp of await leftovers(folder)) expect(await modeOf(`.tmp/${temp}`)).toBe(0o600);
  }
  await store.write('written', looking(), { secret: true });
  const staged = await store.stage();
  await nodeFs.writeFile(staged.path, 'secret', { mode: 0o644 });
  await staged.publish('staged', { secret: true });
  await store.write('open', bytesOf('x'));
  expect(await modeOf('written')).toBe(0o600);
  expect(await modeOf('staged')).toBe(0o600);
  expect(await modeOf('open')).toBe(0o644 & ~process.umask());
});

test('files with other names are not seen', async () => {
  await nodeFs.mkdir(join(folder, 'lost+found'));
  await nodeFs.writeFile(join(folder, 'README.TXT'), '');
  await nodeFs.writeFile(join(folder, '.hidden'), '');
  const store = await directoryStore(folder);
  expect(await store.list('')).toEqual({ names: [], complete: true });
});

test.skipIf(process.platform === 'win32')(
  'follows no symbolic link, and says that its list is not complete',
  async () => {
    const outside = await nodeFs.mkdtemp(join(tmpdir(), 'store-outside-'));
    try {
      await nodeFs.writeFile(join(outside, 'file'), 'theirs');
      await nodeFs.symlink(outside, join(folder, 'folder'));
      await nodeFs.symlink(join(outside, 'file'), join(folder, 'file'));
      const store = await directoryStore(folder);
      expect(await store.list('')).toEqual({ names: [], complete: false });
      await expect(store.open('file')).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      expect(await store.size('file')).toBeUndefined();
      await expect(store.open('folder/file')).rejects.toMatchObject({ code: 'STORE_IO' });
      await expect(store.size('folder/file')).rejects.toMatchObject({ code: 'STORE_IO' });
      await expect(store.remove('folder/file')).rejects.toMatchObject({ code: 'STORE_IO' });
      await expect(store.write('folder/new', bytesOf('x'))).rejects.toMatchObject({ code: 'STORE_IO' });
      await expect(store.write('file', bytesOf('x'))).rejects.toMatchObject({ code: 'STORE_EXISTS' });
      await store.remove('file');
      expect(await nodeFs.readdir(outside)).toEqual(['file']);
      expect(await nodeFs.readFile(join(outside, 'file'), 'utf8')).toBe('theirs');
    } finally {
      await nodeFs.rm(outside, { recursive: true });
    }
  },
);

test('a store that is itself reached through a symbolic link is one', async () => {
  await nodeFs.mkdir(join(folder, 'real'));
  await nodeFs.symlink(join(folder, 'real'), join(folder, 'link'));
  const store = await directoryStore(join(folder, 'link'));
  await store.write('a/b', bytesOf('x'));
  expect((await store.list('')).names).toEqual(['a/b']);
});

describe('what a power cut must not take', () => {
  /** Which folders were synced, and which objects were removed, in order, below the store. */
  function recording(): { fs: FileSystem; log: string[] } {
    const log: string[] = [];
    const shown = (path: unknown) => String(path).slice(folder.length) || '/';
    const fs: FileSystem = {
      ...nodeFs,
      rm: async (path, options) => {
        if (!String(path).includes('.tmp')) log.push(`rm ${shown(path)}`);
        await nodeFs.rm(path, options);
      },
      open: (async (...args: Parameters<FileSystem['open']>) => {
        const file = await nodeFs.open(...args);
        const sync = file.sync.bind(file);
        const isFolder = (await file.stat()).isDirectory();
        return Object.assign(file, {
          sync: async () => {
            if (isFolder) log.push(`sync ${shown(args[0])}`);
            await sync();
          },
        });
      }) as FileSystem['open'],
    };
    return { fs, log };
  }

  test('folders that someone else has just made are synced, too, once', async () => {
    const { fs, log } = recording();
    await nodeFs.mkdir(join(folder, 'a', 'b'), { recursive: true });
    const store = await directoryStore(folder, { fs });
    await store.write('a/b/one', bytesOf('1'));
    expect(log.slice(-3)).toEqual(['sync /', 'sync /a', 'sync /a/b']);
    log.length = 0;
    await store.write('a/b/two', bytesOf('2'));
    expect(log).toEqual(['sync /a/b']);
  });

  test('a removal is durable before the next one', async () => {
    const { fs, log } = recording();
    const store = await directoryStore(folder, { fs });
    await store.write('a/one', bytesOf('1'));
    await store.write('b/two', bytesOf('2'));
    log.length = 0;
    await store.remove('a/one');
    await store.remove('b/two');
    expect(log).toEqual(['rm /a/one', 'sync /a', 'rm /b/two', 'sync /b']);
    log.length = 0;
    await store.remove('a/one'); // gone, but who removed it may have died before that was durable
    expect(log).toEqual(['sync /a']);
  });

  test('the folder of the store, and those above it, whoever made them, until there is something in it', async () => {
    const path = join(folder, 'a', 'b');
    await nodeFs.mkdir(path, { recursive: true });
    const { fs, log } = recording();
    await (await directoryStore(path, { fs })).write('one', bytesOf('1'));
    expect(log.slice(0, 2)).toEqual(['sync /a', 'sync /']);
    log.length = 0;
    await (await directoryStore(path, { fs })).write('two', bytesOf('2'));
    expect(log).toEqual(['sync /a/b', 'sync /a/b']); // that .tmp is there, and that "two" is
  });

  test('a folder above that may not be opened is left alone; one that cannot be synced is not', async () => {
    const path = join(folder, 'a', 'b');
    const above = (code: string): FileSystem => ({
      ...nodeFs,
      open: (async (...args: Parameters<FileSystem['open']>) => {
        if (args[0] === folder) throw failure(code, 'open');
        return nodeFs.open(...args);
      }) as FileSystem['open'],
    });
    await expect((await directoryStore(path, { fs: above('EIO') })).write('one', bytesOf('1'))).rejects.toMatchObject({
      code: 'STORE_IO',
    });
    await (await directoryStore(path, { fs: above('EACCES') })).write('one', bytesOf('1'));
  });

  test('what a dead writer left is made durable by settle, folders and what is in them', async () => {
    const { fs, log } = recording();
    const store = await directoryStore(folder, { fs });
    await store.settle!('a/');
    expect(log).toEqual([]);
    for (const name of ['a/b/one', 'a/c/two', 'd/three']) {
      await nodeFs.mkdir(join(folder, name, '..'), { recursive: true });
      await nodeFs.writeFile(join(folder, name), name);
    }
    await store.settle!('a/');
    expect(log).toEqual(['sync /', 'sync /a/b', 'sync /a/c', 'sync /a']);
    log.length = 0;
    await store.settle!('');
    expect(log).toEqual(['sync /a/b', 'sync /a/c', 'sync /a', 'sync /d', 'sync /']);
    await expect(store.settle!('a')).rejects.toMatchObject({ code: 'STORE_NAME_INVALID' });
  });
});

describe('when a system call fails', () => {
  /** Lets the `n`-th call of all the calls that change something fail. */
  function failingAt(n: number, code: string): { fs: FileSystem; calls: () => number } {
    const healthy: FileSystem = { ...nodeFs };
    let calls = 0;
    const step = () => {
      if (++calls === n) throw failure(code);
    };
    const wrapped = <K extends keyof FileSystem>(key: K) =>
      (async (...args: unknown[]) => {
        step();
        return (healthy[key] as (...given: unknown[]) => Promise<unknown>)(...args);
      }) as unknown as FileSystem[K];
    const fs: FileSystem = {
      ...nodeFs,
      link: wrapped('link'),
      mkdir: wrapped('mkdir'),
      open: (async (...args: Parameters<FileSystem['open']>) => {
        step();
        const file = await nodeFs.open(...args);
        for (const method of ['write', 'datasync', 'sync'] as const) {
          const original = file[method].bind(file) as (...given: unknown[]) => Promise<unknown>;
          Object.assign(file, {
            [method]: async (...given: unknown[]) => {
              step();
              return original(...given);
            },
          });
        }
        return file;
      }) as FileSystem['open'],
    };
    return { fs, calls: () => calls };
  }

  test.each([
    ['ENOSPC', 'STORE_FULL'],
    ['EDQUOT', 'STORE_FULL'],
    ['EIO', 'STORE_IO'],
  ])('%s is %s with the object named, and nothing is left, whichever call it is', async (systemCode, code) => {
    let n = 1;
    for (; ; n++) {
      const path = join(folder, `${systemCode}-${n}`);
      const { fs, calls } = failingAt(n, systemCode);
      const store = await directoryStore(path, { fs });
      const outcome = await store.write('a/object', bytesOf('content')).then(
        () => 'written',
        (error: unknown) => error,
      );
      if (calls() < n) {
        expect(outcome).toBe('written');
        break;
      }
      expect(outcome, `call ${n}`).toMatchObject({ code, cause: { code: systemCode } });
      expect((outcome as Error).message).toContain('a/object');
      const healthy = await directoryStore(path);
      expect(await healthy.list('')).toEqual({ names: [], complete: true });
      expect(await leftovers(path), `call ${n}`).toEqual([]);
      await healthy.write('a/object', bytesOf('content'));
    }
    expect(n).toBeGreaterThan(8);
  });

  test('a full file system is STORE_FULL', async (context) => {
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder]).status === 0;
    if (!mounted) context.skip('cannot mount a small file system here');
    try {
      const store = await directoryStore(folder);
      async function* tooMuch() {
        for (let i = 0; i < 20; i++) yield new Uint8Array(64 * 1024).fill(1);
      }
      await expect(store.write('a/big', tooMuch())).rejects.toMatchObject({ code: 'STORE_FULL' });
      expect((await store.list('')).names).toEqual([]);
      await store.write('a/small', new Uint8Array(64 * 1024));
    } finally {
      spawnSync('umount', [folder]);
    }
  });
});

test('many small objects are read by a thread, not left to be read one by one', async () => {
  const store = await directoryStore(folder);
  for (const name of ['a/b', 'a/c']) await store.write(name, bytesOf(name));
  const found: (string | undefined)[] = [];
  for await (const bytes of store.readMany!(['a/c', 'a/none', 'a/b'], 10)) {
    found.push(bytes && Buffer.from(bytes).toString());
  }
  expect(found).toEqual(['a/c', undefined, 'a/b']);
});

describe('what killed writers left', () => {
  const machine = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
  const DAY = 24 * 60 * 60 * 1000;

  async function leave(name: string, ageMs: number): Promise<void> {
    await nodeFs.mkdir(join(folder, '.tmp'), { recursive: true });
    const path = join(folder, '.tmp', name);
    await nodeFs.writeFile(path, 'left');
    await nodeFs.utimes(path, (Date.now() - ageMs) / 1000, (Date.now() - ageMs) / 1000);
  }

  /** A process that has ended: its pid is nobody's, or soon somebody else's. */
  const deadPid = () => spawnSync(process.execPath, ['-e', '']).pid;

  test('goes when it is old and its process is not alive', async () => {
    const dead = deadPid();
    const old = `${machine}-${dead}-1-0123456789ab`;
    const young = `${machine}-${dead}-2-0123456789ab`;
    const alive = `${machine}-${process.ppid}-3-0123456789ab`;
    const elsewhere = `00000000-${process.ppid}-4-0123456789ab`;
    const samePid = `${machine}-${process.pid}-5-0123456789ab`;
    const claim = `claim-${'0'.repeat(64)}`;
    for (const name of [old, alive, elsewhere, samePid, claim, 'not-ours']) await leave(name, 2 * DAY);
    await leave('kept-old', 8.5 * DAY);
    await leave('kept-young', 7.5 * DAY);
    await leave(young, DAY / 2);
    const store = await directoryStore(folder);
    expect(await store.removeAbandoned()).toEqual([elsewhere, old, samePid, claim, 'kept-old'].sort());
    expect((await leftovers(folder)).sort()).toEqual([alive, young, 'kept-young', 'not-ours'].sort());
    expect(await store.removeAbandoned({ olderThanMs: 0 })).toEqual(['kept-young', young].sort());
  });

  describe('without hard links, a claim on a name', () => {
    const claim = `claim-${createHash('sha256').update('a/object').digest('hex')}`;

    test('keeps others away while its maker may live', async () => {
      await leave(claim, 50_000);
      const store = await directoryStore(folder, { fs: withoutLinks });
      await expect(store.write('a/object', bytesOf('x'))).rejects.toMatchObject({ code: 'STORE_EXISTS' });
      expect(await leftovers(folder)).toEqual([claim]);
    });

    test('does not when it is a minute old, and one of several gives the name', async () => {
      await leave(claim, 70_000);
      const store = await directoryStore(folder, { fs: withoutLinks });
      const writes = await Promise.allSettled(['one', 'two'].map((text) => store.write('a/object', bytesOf(text))));
      expect(writes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      expect(await leftovers(folder)).toEqual([]);
    });

    test('that was made anew in the meantime is its maker alone', async () => {
      await leave(claim, 70_000);
      const rename: FileSystem['rename'] = async (from, to) => {
        if (String(from).endsWith(claim)) await leave(claim, 0); // another one took it between our look and this
        await nodeFs.rename(from, to);
      };
      const store = await directoryStore(folder, { fs: { ...withoutLinks, rename } });
      await expect(store.write('a/object', bytesOf('x'))).rejects.toMatchObject({ code: 'STORE_EXISTS' });
      expect((await store.list('')).names).toEqual([]);
    });
  });

  test('never a file that this process still writes, however old', async () => {
    const store: Store = await directoryStore(folder, {
      clock: { now: () => Date.now() + 10 * DAY, sleep: async () => {} },
    });
    const staged = await store.stage();
    await nodeFs.writeFile(staged.path, 'staged');
    async function* slow() {
      yield bytesOf('slow');
      expect(await store.removeAbandoned()).toEqual([]);
    }
    await store.write('slow', slow());
    await staged.publish('staged');
    expect((await store.list('')).names).toEqual(['slow', 'staged']);
  });
});
