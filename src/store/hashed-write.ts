import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import type { WriteOptions, Written } from './store.ts';
import { type StoreAction, storeIo } from './store-error.ts';

/** Chunks up to this many bytes are gathered: a stream of small pieces must not become a stream of system calls. */
const GATHER = 1024 * 1024;
const READ = 1024 * 1024;
/** So many bytes are written before the disk is told to begin: else all of them wait for the last one. */
const SYNC_EVERY = 64 * 1024 * 1024;
/** One file at a time is on its way to the disk: each such call holds one of the few threads that all files share. */
let isSyncing = false;

/**
 * Writes chunks to the end of an open file and hashes them in the same pass: the thread pool writes while this thread
 * hashes and gathers what comes next, and the disk works on what was written. Not all of it is durable when this resolves,
 * but nothing is under way. Only failures of the file are put in the store's words; those of the source pass
 * untouched, even where the file then fails, too.
 */
export async function writeHashed(
  file: FileHandle,
  chunks: AsyncIterable<Uint8Array>,
  action: StoreAction,
  { onHashed }: Pick<WriteOptions, 'onHashed'> = {},
): Promise<Written> {
  const hash = createHash('sha256');
  let [front, back] = [new Uint8Array(GATHER), new Uint8Array(GATHER)];
  let held = 0;
  let length = 0;
  /** What is being written: of the buffer that is not gathered into. */
  let writing: Promise<void> = Promise.resolve();
  /** The last sync that this file began. Its failure is told once, so that a later one would not. */
  let syncing: Promise<void> = Promise.resolve();
  let unsynced = 0;
  const put = async (data: Uint8Array) => {
    await writing;
    if (!isSyncing) await syncing; // it has ended: the file ends here if it failed
    if (unsynced >= SYNC_EVERY && !isSyncing) {
      syncing = sync(file, action);
      syncing.catch(() => {}); // awaited before the next one, or at the end
      unsynced = 0;
    }
    writing = storeIo(action, () => appendFully(file, data));
    writing.catch(() => {}); // awaited before the next write, or at the end
    hashPiece(hash, data, onHashed);
    length += data.byteLength;
    unsynced += data.byteLength;
  };
  const flush = async () => {
    await put(front.subarray(0, held));
    [front, back] = [back, front];
    held = 0;
  };
  try {
    for await (const chunk of chunks) {
      if (held + chunk.byteLength > GATHER) await flush();
      if (chunk.byteLength > GATHER) {
        await put(chunk);
        await writing; // its memory is the source's again with the next one
      } else {
        front.set(chunk, held);
        held += chunk.byteLength;
      }
    }
    await flush();
    await writing;
    await syncing;
  } catch (error) {
    await Promise.allSettled([writing, syncing]); // nobody may close the file before; the first error tells why
    throw error;
  }
  return { length, sha256: hash.digest('hex') };
}

/** Hashes an open file from its start to its end; the next piece is read while this one is hashed. */
export async function hashFile(
  file: FileHandle,
  { signal, onHashed }: Pick<WriteOptions, 'signal' | 'onHashed'> = {},
): Promise<Written> {
  const hash = createHash('sha256');
  let length = 0;
  let [front, back] = [new Uint8Array(READ), new Uint8Array(READ)];
  for (let reading = file.read(front, 0, READ, 0); ; ) {
    const { bytesRead } = await reading;
    if (bytesRead === 0) return { length, sha256: hash.digest('hex') };
    signal?.throwIfAborted();
    const piece = front.subarray(0, bytesRead);
    length += bytesRead;
    [front, back] = [back, front];
    reading = file.read(front, 0, READ, length);
    hashPiece(hash, piece, onHashed);
  }
}

function hashPiece(hash: Hash, piece: Uint8Array, onHashed: WriteOptions['onHashed']): void {
  const startedAt = performance.now();
  hash.update(piece);
  onHashed?.(performance.now() - startedAt);
}

async function sync(file: FileHandle, action: StoreAction): Promise<void> {
  isSyncing = true;
  try {
    await storeIo(action, () => file.datasync());
  } finally {
    isSyncing = false;
  }
}

async function appendFully(file: FileHandle, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await file.write(data, done, data.byteLength - done);
    done += bytesWritten;
  }
}
