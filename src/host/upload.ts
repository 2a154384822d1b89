import { abortableChunks, exactly, type SizedStream } from '../bytes/index.ts';
import { type CallOptions, createLog } from '../core/index.ts';
import { isNetworkFailure } from './host-errors.ts';
import type { Exchange } from './http-exchange.ts';
import { taskFailure } from './tasks.ts';
import { beginTransfer, cut, type TransferContext, type TransferRequest, verdictOn } from './transfer.ts';

const log = createLog('host:transfer');

export interface UploadOptions extends CallOptions {
  /** Called with the bytes sent so far. */
  readonly onSent?: ((bytes: number) => void) | undefined;
  /** The host stops reading before the end of an archive: success then does not mean that it took all. */
  readonly mayLeaveRest?: boolean | undefined;
}

/**
 * Sends a body of known length and waits for the verdict. An abort is answered at once, even where the stream is stuck.
 *
 * @returns what the task returned, as the host wrote it
 * @throws as `download`
 */
export async function upload(
  context: TransferContext,
  request: Omit<TransferRequest, 'method' | 'contentLength'>,
  stream: SizedStream,
  { signal, onSent, mayLeaveRest = false }: UploadOptions = {},
): Promise<string> {
  if (!Number.isSafeInteger(stream.length) || stream.length < 0) {
    throw new RangeError(`${request.what}: expected a length in bytes, got ${stream.length}`);
  }
  // The host answers before it reads, so a 302 comes before anything of the stream is used.
  const put = { ...request, method: 'PUT', contentLength: stream.length } as const;
  const transfer = await beginTransfer(context, put, { signal });
  const { exchange, doing } = transfer;
  const { timeouts } = context;
  try {
    const reply = watchReply(exchange);
    let sent = 0;
    let broken = false;
    const chunks = exactly(stream.length, stream.chunks, request.what);
    for await (const chunk of abortableChunks(chunks, { signal: transfer.signal })) {
      transfer.signal.throwIfAborted();
      if (reply.ended) broken = true;
      else broken = !(await sendUnlessBroken(exchange, chunk, timeouts.idleMs));
      if (broken) break; // the verdict says whether that is a failure
      sent += chunk.byteLength;
      await context.gates.pace.pass(chunk.byteLength, context.clock, { signal: transfer.signal });
      onSent?.(sent);
    }
    transfer.signal.throwIfAborted();
    const all = sent === stream.length;
    const record = await verdictOn(transfer, all ? timeouts.verdictMs : timeouts.cleanUpMs, () =>
      cut(doing, sent, stream.length),
    );
    const failure = taskFailure(record, doing, context.session, 'TRANSFER_FAILED');
    if (failure !== undefined) throw failure;
    if (!all && !mayLeaveRest) throw cut(doing, sent, stream.length);
    return record.result;
  } catch (error) {
    transfer.signal.throwIfAborted();
    throw error;
  } finally {
    await transfer.finish();
  }
}

/** False when the connection is gone, which is not by itself a failure. */
async function sendUnlessBroken(exchange: Exchange, chunk: Uint8Array, idleMs: number): Promise<boolean> {
  try {
    await exchange.write(chunk, idleMs);
    return true;
  } catch (error) {
    if (isNetworkFailure(error)) return false;
    throw error;
  }
}

/** Reads and forgets what the host writes after its 200: only the end matters, the task says why. */
function watchReply(exchange: Exchange): { readonly ended: boolean } {
  const state = { ended: false };
  void (async () => {
    try {
      while ((await exchange.read()) !== undefined);
    } catch (error) {
      log.debug('the answer broke off', { code: (error as { code?: string }).code });
    }
    state.ended = true;
  })();
  return state;
}
