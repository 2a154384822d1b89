import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A directory of its own, removed with all it holds when disposed of. */
export interface TempDir extends AsyncDisposable {
  readonly path: string;
  /** The path of `name` inside it. */
  file(name: string): string;
}

/** `await using dir = await makeTempDir()`: removed at the end of the block. */
export async function makeTempDir(): Promise<TempDir> {
  const path = await mkdtemp(join(tmpdir(), 'xen-backup-sdk-'));
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}

/** The path of a directory that is removed when the running test ends. */
export async function tempDir(): Promise<string> {
  const dir = await makeTempDir();
  onTestFinished(() => dir[Symbol.asyncDispose]());
  return dir.path;
}
