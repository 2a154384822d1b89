import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { promisify } from 'node:util';
import { createGunzip } from 'node:zlib';
import { isZero } from '../../src/bytes/index.ts';
import { makeTempDir } from './temp-dir.ts';

const run = promisify(execFile);
const fixtures = new URL('../../fixtures/ext4/', import.meta.url);
/** debugfs and e2fsck lie where Debian does not look for an ordinary user. */
const env = { ...process.env, LC_ALL: 'C.UTF-8', PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };

/** The three states of the file system in `fixtures/ext4`, in their order in time. */
export const EXT4_STATES = ['first', 'second', 'third'] as const;
export type Ext4State = (typeof EXT4_STATES)[number];

/** Paths of regular files, from the root of the file system, and the SHA-256 of each. */
export type FileHashes = Readonly<Record<string, string>>;

export interface Ext4Manifest {
  /** Size of the image, in bytes. */
  readonly size: number;
  readonly sha256: string;
  readonly files: FileHashes;
}

/** What `fixtures/ext4` says that the state holds. */
export async function ext4Manifest(state: Ext4State): Promise<Ext4Manifest> {
  const manifests = JSON.parse(await readFile(new URL('manifest.json', fixtures), 'utf8')) as Record<
    Ext4State,
    Ext4Manifest
  >;
  return manifests[state];
}

/** Writes the state's image to a new file at `path`, with holes where it is zero. */
export async function unpackExt4(state: Ext4State, path: string): Promise<void> {
  await using file = await open(path, 'wx');
  let offset = 0;
  const bytes = createReadStream(new URL(`${state}.img.gz`, fixtures)).pipe(createGunzip({ chunkSize: 64 * 1024 }));
  for await (const chunk of bytes as AsyncIterable<Uint8Array>) {
    if (!isZero(chunk)) await file.write(chunk, 0, chunk.byteLength, offset);
    offset += chunk.byteLength;
  }
  await file.truncate(offset);
}

/** Rejects with what e2fsck printed unless it finds the file system at `path` clean; changes nothing. */
export async function e2fsck(path: string): Promise<void> {
  await run('e2fsck', ['-f', '-n', path], { env });
}

/** Reads every regular file out of the file system at `path` with debugfs. */
export async function listFiles(path: string): Promise<FileHashes> {
  await using dir = await makeTempDir();
  await run('debugfs', ['-R', `rdump / "${dir.path}"`, path], { env });
  const entries = await readdir(dir.path, { recursive: true, withFileTypes: true });
  const hashes: [string, string][] = [];
  for (const entry of entries.filter((found) => found.isFile())) {
    const file = join(entry.parentPath, entry.name);
    const name = `/${relative(dir.path, file).split(sep).join('/')}`;
    hashes.push([
      name,
      createHash('sha256')
        .update(await readFile(file))
        .digest('hex'),
    ]);
  }
  return Object.fromEntries(hashes.sort(([a], [b]) => (a < b ? -1 : 1)));
}
