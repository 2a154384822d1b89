import { type FileHandle, open } from 'node:fs/promises';
import { describe, expect, test, vi } from 'vitest';
import { hashFile, writeHashed } from '../../src/store/hashed-write.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const ACTION = { label: 'store', name: 'a', action: 'write' };

/** A file on a disk that is full. */
function fullDisk(after: Promise<void>) {
  const write = async () => {
    await after;
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'write' });
  };
  return { write } as unknown as FileHandle;
}

async function* chunks(end: () => void): AsyncGenerator<Uint8Array, void> {
  yield new Uint8Array(1024);
  yield new Uint8Array(1024 * 1024); // the first is written now
  end();
}

test('a full disk is told in the words of the store', async () => {
  const writing = writeHashed(
    fullDisk(Promise.resolve()),
    chunks(() => {}),
    ACTION,
  );
  await expect(writing).rejects.toMatchObject({ code: 'STORE_FULL' });
});

test('of a source that fails and a file that then fails, too, the first is told', async () => {
  const disk = Promise.withResolvers<void>();
  const lost = new Error('the connection is lost');
  const failing = chunks(() => {
    setImmediate(disk.resolve);
    throw lost;
  });
  await expect(writeHashed(fullDisk(disk.promise), failing, ACTION)).rejects.toBe(lost);
});

test('the time of every piece that is hashed is told', async () => {
  await using dir = await makeTempDir();
  const file = await open(dir.file('a'), 'wx+');
  try {
    const times: number[] = [];
    const onHashed = (ms: number) => void times.push(ms);
    const written = await writeHashed(
      file,
      chunks(() => {}),
      ACTION,
      { onHashed },
    );
    expect(times).toHaveLength(2);
    expect(await hashFile(file, { onHashed })).toEqual(written);
    expect(times).toHaveLength(4);
    expect(Math.min(...times)).toBeGreaterThan(0);
  } finally {
    await file.close();
  }
});

describe('a long file is on its way to the disk while it is written', () => {
  const MIB = 1024 * 1024;
  const SOON = { timeout: 30_000, interval: 5 };

  async function* manyMib(count: number): AsyncGenerator<Uint8Array, void> {
    const piece = new Uint8Array(MIB);
    for (let i = 0; i < count; i++) yield piece;
  }

  /** A file that counts, whose syncs end when they are told to. */
  function slowDisk() {
    const syncs: PromiseWithResolvers<void>[] = [];
    let written = 0;
    const file = {
      write: async (_: Uint8Array, __: number, length: number) => {
        written += length;
        return { bytesWritten: length };
      },
      datasync: () => {
        const sync = Promise.withResolvers<void>();
        syncs.push(sync);
        return sync.promise;
      },
    };
    return { file: file as unknown as FileHandle, syncs, written: () => written };
  }

  test('one sync at a time, of all files, and none is left behind', async () => {
    const [one, other] = [slowDisk(), slowDisk()];
    let isDone = false;
    const writing = writeHashed(one.file, manyMib(200), ACTION).finally(() => {
      isDone = true;
    });
    await vi.waitFor(() => expect(one.written()).toBeGreaterThan(190 * MIB), SOON);
    expect(one.syncs).toHaveLength(1);
    await writeHashed(other.file, manyMib(100), ACTION);
    expect(other.syncs).toHaveLength(0);
    expect(isDone).toBe(false); // its file may not be closed under a sync
    one.syncs[0]!.resolve();
    expect((await writing).length).toBe(200 * MIB);
  });

  test('one sync at a time, of files that come to it together', async () => {
    let syncing = 0;
    let most = 0;
    const file = {
      write: async (_: Uint8Array, __: number, length: number) => ({ bytesWritten: length }),
      datasync: async () => {
        most = Math.max(most, ++syncing);
        await new Promise(setImmediate);
        syncing--;
      },
    } as unknown as FileHandle;
    await Promise.all([1, 2, 3].map(() => writeHashed(file, manyMib(200), ACTION)));
    expect(most).toBe(1);
  });

  test('a sync that fails fails the file: the next one would say that all is well', async () => {
    const disk = slowDisk();
    const failure = Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'fdatasync' });
    const writing = writeHashed(disk.file, manyMib(1000), ACTION);
    writing.catch(() => {});
    await vi.waitFor(() => expect(disk.syncs).toHaveLength(1), SOON);
    disk.syncs[0]!.reject(failure);
    await expect(writing).rejects.toMatchObject({ code: 'STORE_IO', cause: failure });
    expect(disk.syncs).toHaveLength(1);
  });

  test('a source that fails is told when the sync has ended', async () => {
    const disk = slowDisk();
    const lost = new Error('the connection is lost');
    async function* failing() {
      yield* manyMib(80);
      throw lost;
    }
    const writing = writeHashed(disk.file, failing(), ACTION);
    writing.catch(() => {});
    await vi.waitFor(() => expect(disk.written()).toBe(79 * MIB), SOON);
    disk.syncs[0]!.resolve();
    await expect(writing).rejects.toBe(lost);
  });
});
