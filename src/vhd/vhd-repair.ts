import { constants } from 'node:fs';
import { copyFile, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { openFileSource } from '../bytes/index.ts';
import type { CallOptions } from '../core/index.ts';
import { FOOTER_SIZE, roundUpToSector } from './constants.ts';
import { throwFirstError, type VhdFinding } from './findings.ts';
import { encodeFooter } from './footer.ts';
import { inspectVhd } from './inspect.ts';
import { syncFolder } from './sync-folder.ts';

/** What {@link repairVhd} had to mend. */
export interface RepairedVhd {
  /** What was unusual about the original; those about footers no longer hold for the copy. */
  readonly findings: readonly VhdFinding[];
  /** Of the copy, in bytes. */
  readonly length: number;
}

/**
 * Copies a VHD whose footers are damaged, missing or not the same (a host that crashed, a copy of a running disk) to
 * the new file `target`, with the footer that is still good in both places. Everything else stays as it is, and must be
 * sound. The original is not touched; the copy is removed when this rejects.
 *
 * @throws FormatError where there is more wrong than that; `EEXIST` where there is a file at `target`.
 */
export async function repairVhd(path: string, target: string, options: CallOptions = {}): Promise<RepairedVhd> {
  await using source = await openFileSource(path);
  const { findings, structure } = await inspectVhd(source, options);
  throwFirstError(findings, path);
  const { footer, kind, dataEnd } = structure!;
  await copyFile(path, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  try {
    await using file = await open(target, 'r+');
    options.signal?.throwIfAborted();
    const bytes = encodeFooter(footer);
    const footerAt = roundUpToSector(dataEnd);
    if (kind !== 'fixed') await file.write(bytes, 0, FOOTER_SIZE, 0);
    await file.write(bytes, 0, FOOTER_SIZE, footerAt);
    await file.sync();
    await syncFolder(dirname(target));
    return { findings, length: footerAt + FOOTER_SIZE };
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
}
