import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { attachToControlDomain } from './attach.ts';
import type { FaultOptions } from './faults.ts';
import { head } from './http-answers.ts';
import type { Simulation } from './simulation.ts';
import type { RunningTask } from './tasks.ts';
import { type HandlerContext, XapiFailure } from './world.ts';

/** A request whose credentials were checked. */
export interface TransferRequest {
  readonly request: IncomingMessage;
  readonly socket: Socket;
  readonly path: string;
  readonly query: ReadonlyMap<string, string>;
  readonly session: string;
}

/** A transfer under way: the handler's view of it, and ours. */
export interface Exchange {
  readonly context: HandlerContext;
  /** What the handler adopted. */
  readonly task: RunningTask | undefined;
  readonly headSent: boolean;
  /** Did the connection end before the handler did? */
  clientGone(): boolean;
  /** Lets go of the connection's events, and of a task that nobody can ask for. */
  close(): void;
}

const REASONS: Readonly<Record<number, string>> = { 200: 'OK', 302: 'Found', 400: 'Bad Request', 404: 'Not Found' };

/** Joins a request to the pool. */
export function createHandlerContext(simulation: Simulation, transfer: TransferRequest): Exchange {
  const { world, tasks, closing } = simulation;
  const { request, socket, path, query, session } = transfer;
  const gone = new AbortController();
  const cancelled = new AbortController();
  const onClose = () => gone.abort(new Error('the client has gone'));
  socket.once('close', onClose);
  let task: RunningTask | undefined;
  let ownTask = false;
  let headSent = false;
  const sent = createBodyFaults(simulation, path);
  const length = Number(request.headers['content-length'] ?? Number.NaN);

  const signal = AbortSignal.any([gone.signal, cancelled.signal, closing]);

  const context: HandlerContext = {
    world,
    faults: world.faults,
    method: request.method ?? '',
    path,
    query,
    headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
    session,
    contentLength: Number.isSafeInteger(length) ? length : undefined,
    transferEncoding: request.headers['transfer-encoding'],
    body: readBody(
      request,
      world.faults.take('stall', (fault) => fits(fault, path, 'PUT', request.method)),
      signal,
    ),
    socket,
    signal,
    adoptTask(label) {
      const given = query.get('task_id');
      ownTask = given === undefined;
      const ref = given ?? tasks.create(label, { session });
      world.assertObject('task', ref);
      task = tasks.run(ref, { cancellable: true });
      task.cancelled.addEventListener('abort', () => cancelled.abort(task?.cancelled.reason), { once: true });
      return task;
    },
    sendHead(status, headers, { httpVersion = '1.1' } = {}) {
      headSent = true;
      const line = `HTTP/${httpVersion} ${status} ${REASONS[status] ?? ''}`;
      const common = { connection: 'close', 'cache-control': 'no-cache, no-store' };
      socket.write(head(line, { ...common, ...(task !== undefined && { 'task-id': task.ref }), ...headers }));
    },
    async write(bytes) {
      context.signal.throwIfAborted();
      const through = await sent.pass(bytes, socket, context.signal);
      if (through === undefined || socket.destroyed || socket.write(through)) return;
      await once(socket, 'drain', { signal: context.signal }).catch((error: unknown) => {
        context.signal.throwIfAborted(); // the reason, not an AbortError of its own
        throw error;
      });
    },
    attachVdi: (vdiRef, mode) => attachToControlDomain(simulation, vdiRef, mode),
  };
  return {
    context,
    get task() {
      return task;
    },
    get headSent() {
      return headSent;
    },
    clientGone: () => gone.signal.aborted,
    close() {
      socket.off('close', onClose);
      if (ownTask && task !== undefined) tasks.destroy(task.ref);
    },
  };
}

function fits({ path }: { readonly path?: string }, actual: string, verb: string, method: string | undefined): boolean {
  return method === verb && (path === undefined || path === actual);
}

/** The body up to its announced end; a client that goes only makes it end early. */
async function* readBody(
  request: IncomingMessage,
  stall: FaultOptions['stall'] | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  let read = 0;
  try {
    // A handler that stops reading must still be able to answer: the connection stays.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      yield chunk as Uint8Array;
      read += (chunk as Uint8Array).byteLength;
      if (stall !== undefined && read >= stall.after) await untilAborted(signal);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
  }
}

/** Rejects with the signal's reason once it fires. */
async function untilAborted(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, 'abort');
  throw signal.reason;
}

/** Counts what goes out, and strikes where `export-cut` and `stall` say. */
function createBodyFaults({ world }: Simulation, path: string) {
  let total = 0;
  let cut: FaultOptions['export-cut'] | undefined;
  let stall: FaultOptions['stall'] | undefined;
  let armed = false;
  let silent = false;
  return {
    /** What of `bytes` goes through; nothing if the connection was cut on demand. */
    async pass(bytes: Uint8Array, socket: Socket, signal: AbortSignal): Promise<Uint8Array | undefined> {
      if (silent) return undefined;
      if (!armed) {
        armed = true;
        cut = world.faults.take('export-cut', (fault) => fits(fault, path, '', ''));
        stall = world.faults.take('stall', (fault) => fits(fault, path, '', ''));
      }
      const limit = Math.min(cut?.after ?? Infinity, stall?.after ?? Infinity);
      if (total + bytes.byteLength < limit) {
        total += bytes.byteLength;
        return bytes;
      }
      await new Promise<void>((resolve) => socket.write(bytes.subarray(0, limit - total), () => resolve()));
      total = limit;
      if (stall !== undefined && limit === stall.after) {
        await untilAborted(signal);
      }
      if (cut?.taskSucceeds !== true) {
        socket.destroy();
        throw new XapiFailure('CLIENT_ERROR', ['The connection was cut on demand']);
      }
      silent = true;
      socket.end();
      return undefined;
    },
  };
}
