import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, test, vi } from 'vitest';
import { readManyFiles } from '../../src/store/read-many-files.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';

vi.mock('node:worker_threads', { spy: true });

const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

const text = (found: (Uint8Array | undefined)[]) => found.map((bytes) => bytes && Buffer.from(bytes).toString());

test('says nothing of what is no plain file, not there, or too long', async () => {
  const dir = await tempDir();
  const at = (name: string) => join(dir, name);
  await writeFile(at('a'), 'whole');
  await writeFile(at('empty'), '');
  await writeFile(at('long'), 'x'.repeat(11));
  await mkdir(at('folder'));
  await symlink(at('a'), at('link'));
  execFileSync('mkfifo', [at('pipe')]);
  const names = ['a', 'empty', 'long', 'folder', 'link', 'pipe', 'none', 'a'];
  const found = await toArray(readManyFiles(names.map(at), FLAGS, 10));
  expect(text(found)).toEqual(['whole', '', undefined, undefined, undefined, undefined, undefined, 'whole']);
});

test('reads thousands of files in their order', async () => {
  const dir = await tempDir();
  await Promise.all(Array.from({ length: 50 }, (_, i) => writeFile(join(dir, String(i)), `file ${i}`)));
  const numbers = Array.from({ length: 2500 }, (_, i) => (i * 7) % 50);
  const paths = numbers.map((number) => join(dir, String(number)));
  expect(text(await toArray(readManyFiles(paths, FLAGS, 10)))).toEqual(numbers.map((number) => `file ${number}`));
});

test('nobody waits for a reader that cannot be started, or that dies', async () => {
  const dir = await tempDir();
  await writeFile(join(dir, 'a'), 'whole');
  const paths = Array.from({ length: 2000 }, () => join(dir, 'a'));
  vi.mocked(Worker).mockImplementationOnce(() => {
    throw Object.assign(new Error('no threads here'), { code: 'ERR_ACCESS_DENIED' });
  });
  expect(new Set(await toArray(readManyFiles(paths, FLAGS, 10)))).toEqual(new Set([undefined]));

  vi.mocked(Worker).mockClear();
  const found: (Uint8Array | undefined)[] = [];
  for await (const bytes of readManyFiles(paths, FLAGS, 10)) {
    found.push(bytes);
    if (found.length === 1) await (vi.mocked(Worker).mock.instances[0] as unknown as Worker).terminate();
  }
  expect(found).toHaveLength(2000);
  expect(text(found)[0]).toBe('whole');
  expect(found.at(-1)).toBeUndefined();
});

test('who leaves early leaves no thread behind', async () => {
  const dir = await tempDir();
  await writeFile(join(dir, 'a'), 'whole');
  vi.mocked(Worker).mockClear();
  for await (const bytes of readManyFiles([join(dir, 'a'), join(dir, 'a')], FLAGS, 10)) {
    expect(bytes).toBeDefined();
    break;
  }
  const worker = vi.mocked(Worker).mock.results[0]!.value as Worker;
  expect(worker.threadId).toBe(-1); // Node's way to say that it has ended
});
