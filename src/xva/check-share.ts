import { readSync } from 'node:fs';
import type { ChunkShare } from './chunk-hashing.ts';
import { XVA_CHUNK_SIZE } from './constants.ts';
import { type XvaReport, XvaReporter } from './xva-report.ts';
import { createWalker } from './xva-walker.ts';

/** An open file that holds an uncompressed archive. */
export interface ArchiveFile {
  /** Its descriptor; it is read at positions, and stays open. */
  readonly fd: number;
  /** In bytes. */
  readonly size: number;
}

/** What is read behind data that was passed over, in bytes: a checksum and two headers, after which more may be. */
const HEADERS = 2048;
/** What is read at once of data, in bytes: it stays in a core's own cache until it is hashed. Four end behind a chunk. */
const PIECE = XVA_CHUNK_SIZE / 4 + HEADERS;

/**
 * Checks the structure of a whole archive, and of its chunks those of one share, with calls that wait: for threads that
 * have nothing else to do.
 */
export async function checkShare({ fd, size }: ArchiveFile, share: ChunkShare): Promise<XvaReport> {
  const reporter = new XvaReporter();
  const walker = await createWalker('hash', (event) => reporter.see(event), share);
  const buffer = new Uint8Array(PIECE);
  try {
    for (let at = 0; ; ) {
      const passedOver = walker.toSkip;
      at += passedOver;
      walker.skipped();
      if (at >= size) break;
      const length = Math.min(passedOver > 0 ? HEADERS : PIECE, size - at);
      const bytesRead = readSync(fd, buffer, 0, length, at);
      if (bytesRead === 0) throw new Error(`the archive ends at ${at}, not at ${size}: it was cut meanwhile`);
      walker.give(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    walker.end();
  } catch (error) {
    reporter.fault(error);
  }
  return reporter.report({ compression: 'none', length: size, plainLength: size });
}
