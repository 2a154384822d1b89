import { close, constants, fstat, open, read } from 'node:fs';
import { promisify } from 'node:util';

const [openFile, statFile, readFile, closeFile] = [open, fstat, read, close].map((call) => promisify(call)) as [
  typeof open.__promisify__,
  typeof fstat.__promisify__,
  typeof read.__promisify__,
  typeof close.__promisify__,
];

/**
 * The whole of a plain file of at most `longest` bytes, `undefined` where it is longer or no plain file. For files that are
 * read by the hundred thousand: without the file handles of `node:fs/promises` it takes half the time.
 *
 * @param flags - as of `open`.
 */
export async function readSmallFile(path: string, flags: number, longest: number): Promise<Uint8Array | undefined> {
  const file = await openFile(path, flags | constants.O_RDONLY);
  try {
    const stat = await statFile(file);
    if (!stat.isFile() || stat.size > longest) return undefined;
    const bytes = new Uint8Array(stat.size);
    for (let done = 0; done < bytes.byteLength; ) {
      const { bytesRead } = await readFile(file, bytes, done, bytes.byteLength - done, done);
      if (bytesRead === 0) return undefined; // cut short since
      done += bytesRead;
    }
    return bytes;
  } finally {
    await closeFile(file);
  }
}
