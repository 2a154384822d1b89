import { createLog } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { COMMAND, ERRNO, MAX_PAYLOAD } from './constants.ts';
import type { RequestHeader } from './messages.ts';
import { checkRequest } from './request-check.ts';
import { Dropped, readRequest, type ServerConnection, step } from './server-connection.ts';
import { blockStatus, encodeError, encodeSuccess, type Parts, readParts } from './server-replies.ts';
import { performWrite } from './server-writes.ts';
import type { Reading } from './transport.ts';

const log = createLog('nbd-server');

/** Requests worked on at the same time on one connection, and how many bytes of payload they may hold. */
const MAX_IN_FLIGHT = 16;
const MAX_BYTES_IN_FLIGHT = 2 * MAX_PAYLOAD;
const DISCARD_SIZE = 64 * 1024;

/** What the handshake agreed on. */
export interface ServedSession {
  /** Transmission flags. */
  readonly flags: number;
  readonly structured: boolean;
  readonly hasContext: boolean;
}

/** The transmission phase: until the client says goodbye or goes. Answers come as they are ready. */
export async function serveRequests(connection: ServerConnection, disk: Disk, session: ServedSession): Promise<void> {
  const { transport } = connection;
  connection.established();
  const working = new Map<Promise<void>, number>();
  let bytes = 0;
  let broken: unknown;
  const start = (request: RequestHeader, work: Promise<void>) => {
    const held = holds(request);
    bytes += held;
    const entry = work
      .catch((error: unknown) => {
        broken ??= error;
        transport.destroy(); // the loop below is woken by this
      })
      .finally(() => {
        bytes -= held;
        working.delete(entry);
      });
    working.set(entry, held);
  };
  try {
    for (;;) {
      const request = await transport.read(readRequest());
      if (request.type === COMMAND.DISC) break;
      const held = holds(request);
      while (working.size >= MAX_IN_FLIGHT || (working.size > 0 && bytes + held > MAX_BYTES_IN_FLIGHT)) {
        await Promise.race(working.keys());
      }
      const data = request.type === COMMAND.WRITE ? await transport.read(readPayload(request.length)) : undefined;
      start(request, serveOne(connection, disk, session, request, data));
      await transport.drained(); // a client that does not read its answers gets no more of them
    }
  } catch (error) {
    throw broken ?? error;
  } finally {
    await Promise.allSettled(working.keys());
  }
}

/** How many bytes of memory a request takes. */
function holds({ type, length }: RequestHeader): number {
  return type === COMMAND.READ || type === COMMAND.WRITE ? Math.min(length, MAX_PAYLOAD) : 0;
}

/** The data of a WRITE. One that is too long is passed over and refused afterwards, so that we stay in step. */
function* readPayload(length: number): Reading<Uint8Array | undefined> {
  if (length <= MAX_PAYLOAD) {
    const data = new Uint8Array(length);
    yield data;
    return data;
  }
  const scratch = new Uint8Array(DISCARD_SIZE);
  for (let left = length; left > 0; left -= scratch.byteLength) yield scratch.subarray(0, Math.min(left, DISCARD_SIZE));
  return undefined;
}

async function serveOne(
  connection: ServerConnection,
  disk: Disk,
  session: ServedSession,
  request: RequestHeader,
  data: Uint8Array | undefined,
): Promise<void> {
  const { transport } = connection;
  const { type, offset, length } = request;
  const verdict = await step(connection, { kind: 'request', type, offset, length });
  const checked = connection.closing.aborted ? ERRNO.ESHUTDOWN : checkRequest(request, { ...session, size: disk.size });
  const errno = typeof verdict === 'object' ? verdict.errno : checked;
  const parts =
    errno !== 0 ? encodeError(session, request, errno, '') : await perform(connection, disk, session, request, data);
  if (verdict === 'cut') {
    for (const part of parts.slice(0, 1)) transport.write(part.subarray(0, Math.ceil(part.byteLength / 2)));
    throw new Dropped('by a hook, within a reply');
  }
  for (const part of parts) transport.write(part); // all at once: replies do not mix
}

/** Does the work, and only then makes the reply: an error is told as such, never after a header that says success. */
async function perform(
  connection: ServerConnection,
  disk: Disk,
  session: ServedSession,
  request: RequestHeader,
  data: Uint8Array | undefined,
): Promise<Parts> {
  const signal = connection.closing;
  const { type, offset, length } = request;
  try {
    if (type === COMMAND.READ) return await readParts(disk, session, request, signal);
    if (type === COMMAND.BLOCK_STATUS) return await blockStatus(disk, request, signal);
    await performWrite(disk, request, data, { signal });
    return encodeSuccess(request);
  } catch (error) {
    connection.signal.throwIfAborted();
    if (signal.aborted) return encodeError(session, request, ERRNO.ESHUTDOWN, 'the server is going down');
    log.debug('a request failed', { type, offset, length, why: String(error) });
    return encodeError(session, request, errnoOf(error), 'the disk behind the export failed');
  }
}

function errnoOf(error: unknown): number {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT') return ERRNO.ENOSPC;
  if (code === 'NBD_NOT_SUPPORTED') return ERRNO.ENOTSUP; // a disk that is served on from another server
  return code === 'EPERM' || code === 'EACCES' || code === 'EROFS' ? ERRNO.EPERM : ERRNO.EIO;
}
