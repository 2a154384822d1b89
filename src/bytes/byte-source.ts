import { constants, read } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { type CallOptions, FormatError } from '../core/index.ts';
import type { Struct } from './struct.ts';

/** Random access to bytes: a file, an object in a bucket, a buffer. */
export interface ByteSource extends AsyncDisposable {
  /** In bytes; a safe integer. */
  readonly size: number;
  /** Fills `target` whole from `offset` (bytes), or rejects: never short. Concurrent calls are allowed. */
  readInto(target: Uint8Array, offset: number, options?: CallOptions): Promise<void>;
  /** The same as `Symbol.asyncDispose`, for callers without `await using`. May be called twice. */
  close(): Promise<void>;
}

/** A file as a source. */
export interface FileSource extends ByteSource {
  /** Its descriptor, open until the source is closed: for threads that read the very same file. */
  readonly fd: number;
}

/** Throws a `RangeError` unless `[offset, offset + length)` lies within `size` bytes. */
export function assertRange(what: string, size: number, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new RangeError(`${what}: offset ${offset} and length ${length} must be safe integers, not negative`);
  }
  if (offset + length > size) {
    throw new RangeError(`${what}: ${length} bytes at ${offset} reach past its end at ${size}`);
  }
}

/** Bytes in memory as a source. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.byteLength,
    async readInto(target, offset, { signal } = {}) {
      signal?.throwIfAborted();
      assertRange('memory', bytes.byteLength, offset, target.byteLength);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
}

/**
 * A regular file as a source, opened for reading. Its size is taken once, when it is opened; a file that shrinks later
 * gives `BYTES_FILE_SHORT`. A directory or a device is `BYTES_NOT_A_FILE`: a device tells no size.
 */
export async function openFileSource(path: string): Promise<FileSource> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) {
      throw new FormatError('BYTES_NOT_A_FILE', {
        what: 'file',
        offset: 0,
        expected: 'a regular file',
        actual: stats.isDirectory() ? 'a directory' : 'a device, pipe or socket, whose size cannot be told',
        file: path,
      });
    }
    return fileSource(handle, stats.size, path);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The first `size` bytes of an open file; closing the source closes the handle. */
export function fileSource(handle: FileHandle, size: number, path: string): FileSource {
  let closing: Promise<void> | undefined;
  let reading = 0;
  let onIdle: (() => void) | undefined;

  /** By the descriptor, not the handle: half the time of a small read. The handle is closed when none is under way. */
  function readSome(target: Uint8Array, done: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      reading++;
      read(handle.fd, target, done, target.byteLength - done, position, (error, bytesRead) => {
        if (--reading === 0) onIdle?.();
        if (error === null) resolve(bytesRead);
        else reject(error);
      });
    });
  }

  const close = () => {
    closing ??= (async () => {
      if (reading > 0) await new Promise<void>((resolve) => (onIdle = resolve));
      await handle.close();
    })();
    return closing;
  };
  return {
    size,
    fd: handle.fd,
    async readInto(target, offset, { signal } = {}) {
      assertRange(path, size, offset, target.byteLength);
      for (let done = 0; done < target.byteLength; ) {
        signal?.throwIfAborted();
        if (closing !== undefined) throw new TypeError(`${path}: read after it was closed`);
        const bytesRead = await readSome(target, done, offset + done);
        if (bytesRead === 0) {
          throw new FormatError('BYTES_FILE_SHORT', {
            what: 'file',
            offset: offset + done,
            expected: `${size} bytes`,
            actual: `its end at ${offset + done}`,
            file: path,
          });
        }
        done += bytesRead;
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Reads `length` bytes into memory of their own. The caller has checked `length`. */
export async function readBytes(
  from: ByteSource,
  offset: number,
  length: number,
  options?: CallOptions,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await from.readInto(bytes, offset, options);
  return bytes;
}

/** Reads and decodes one structure. */
export async function readStruct<T>(from: ByteSource, at: number, codec: Struct<T>, options?: CallOptions): Promise<T> {
  return codec.decode(await readBytes(from, at, codec.size, options), at);
}
