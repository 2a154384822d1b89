import { type FileHandle, open } from 'node:fs/promises';
import { expect, test } from 'vitest';
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
  yield new Uint8Array(512 * 1024); // the first is written now
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
    expect(times).toHaveLength(3);
    expect(Math.min(...times)).toBeGreaterThan(0);
  } finally {
    await file.close();
  }
});
