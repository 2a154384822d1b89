import { type ByteSource, sourceChunks } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import type { BlockDigest, BlockDigests } from '../disk/index.ts';
import { pointBroken } from './open-disk.ts';

/** Lines that are written at a time. */
const GATHER = 1024;
const LINE = /^([0-9a-f]{64}) {2}(\d{1,16})$/;

/** The digests of a layer as text: a line for each block, its SHA-256 and its offset on the disk in bytes. */
export async function* encodeDigests(digests: BlockDigests): AsyncGenerator<Uint8Array, void> {
  let lines: string[] = [];
  for await (const { offset, sha256 } of digests.list()) {
    lines.push(`${sha256}  ${offset}\n`);
    if (lines.length < GATHER) continue;
    yield Buffer.from(lines.join(''));
    lines = [];
  }
  yield Buffer.from(lines.join(''));
}

/**
 * Reads what {@link encodeDigests} wrote, line by line.
 *
 * @throws BackupError `POINT_BROKEN` for a line that is none.
 */
export async function* decodeDigests(
  source: ByteSource,
  file: string,
  { signal }: CallOptions = {},
): AsyncGenerator<BlockDigest, void> {
  let rest = '';
  for await (const chunk of sourceChunks(source, { reuseMemory: true, signal })) {
    const lines = (rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('latin1')).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const [, sha256, offset] = LINE.exec(line) ?? [];
      if (sha256 === undefined) throw pointBroken(file, 'line', 'a SHA-256 and an offset', line.slice(0, 100));
      yield { sha256, offset: Number(offset) };
    }
    if (rest.length > 100) throw pointBroken(file, 'line', 'a SHA-256 and an offset', rest.slice(0, 100));
  }
}
