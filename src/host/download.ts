import { BackupError, type CallOptions } from '../core/index.ts';
import { type ErrorPageWatch, watchForErrorPage } from './error-page.ts';
import type { ExportMemoryOptions } from './host.ts';
import { isNetworkFailure, toBackupError } from './host-errors.ts';
import { taskFailure } from './tasks.ts';
import {
  beginTransfer,
  cut,
  type Transfer,
  type TransferContext,
  type TransferRequest,
  verdictOn,
} from './transfer.ts';

/** After the last byte of an export the host only detaches the disk; it tries that for five minutes. */
const MAX_EXPORT_VERDICT_MS = 600_000;

export interface DownloadOptions extends CallOptions, ExportMemoryOptions {
  /** What the body must have, in bytes, where that is known when it ends; else what the answer's head promised. */
  readonly length?: (() => number | undefined) | undefined;
}

export interface Download {
  readonly chunks: AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Starts an export. The chunks end only when the host's task has succeeded.
 *
 * @throws HostError `TRANSFER_FAILED`, with the host's code
 * @throws BackupError `TRANSFER_CUT`, `TASK_VANISHED`, `TIMEOUT`, and what connecting throws
 */
export async function download(
  context: TransferContext,
  request: TransferRequest,
  { signal, reuseMemory, length }: DownloadOptions = {},
): Promise<Download> {
  const transfer = await beginTransfer(context, request, { signal, reuseMemory });
  const promised = transfer.head.headers.get('content-length');
  const expectedLength = () => length?.() ?? (promised === undefined ? undefined : Number(promised));
  const { timeouts } = context;
  const seen = watchForErrorPage();
  let taken = false;

  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    if (taken) throw new TypeError(`${transfer.doing}: the chunks can be read once`);
    taken = true;
    try {
      yield* body(context, transfer, seen);
      const expected = expectedLength();
      const short = expected !== undefined && seen.length < expected;
      if (short) throw (await transfer.explanation()) ?? cut(transfer.doing, seen.length, expected);
      const timeoutMs = Math.min(timeouts.verdictMs, MAX_EXPORT_VERDICT_MS);
      const record = await verdictOn(transfer, timeoutMs, () => cut(transfer.doing, seen.length, expected));
      const failure = taskFailure(record, transfer.doing, context.session, 'TRANSFER_FAILED');
      if (failure !== undefined) throw failure;
      checkEnd(transfer.doing, seen, expected);
    } catch (error) {
      transfer.signal.throwIfAborted();
      if (!isNetworkFailure(error)) throw toBackupError(error, transfer.doing, context.session.scrub);
      throw (await transfer.explanation()) ?? cut(transfer.doing, seen.length, expectedLength());
    } finally {
      await transfer.finish();
    }
  }

  return { chunks: { [Symbol.asyncIterator]: chunks }, close: transfer.finish };
}

async function* body(
  context: TransferContext,
  transfer: Transfer,
  seen: ErrorPageWatch,
): AsyncGenerator<Uint8Array, void> {
  const { firstByteMs, idleMs } = context.timeouts;
  let lookAtStart = true;
  for (;;) {
    const chunk = await transfer.exchange.read(seen.length === 0 ? firstByteMs : idleMs);
    if (chunk === undefined) return;
    seen.see(chunk);
    if (lookAtStart && seen.atStart()) {
      // A disk may begin with these bytes, too: the task knows.
      lookAtStart = false;
      const failure = await transfer.explanation();
      if (failure !== undefined) throw failure;
    }
    yield chunk;
    await context.gates.pace.pass(chunk.byteLength, context.clock, { signal: transfer.signal });
  }
}

/** The task succeeded; is the body what it should be? */
function checkEnd(doing: string, seen: ErrorPageWatch, expected: number | undefined): void {
  if (expected === undefined ? !seen.atEnd() : seen.length === expected) return;
  throw new BackupError(
    'TRANSFER_FAILED',
    `${doing}: the host wrote more than the export: an error page, or another size`,
    {
      retryable: true,
      facts: { received: seen.length, expected },
    },
  );
}
