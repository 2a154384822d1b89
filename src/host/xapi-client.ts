/** The only import of `xen-api`, which keeps the session, repeats what is safe to repeat and watches events. */
import { Xapi } from 'xen-api';
import getTaskResult from 'xen-api/_getTaskResult.mjs';
import { BackupError } from '../core/index.ts';
import transports, { type XapiTarget } from './replacements/transports.ts';
import type { Rpc } from './rpc.ts';

/** The release we hold `xen-api` to: it is bundled, and its inside is replaced in part. */
export const XEN_API_VERSION = '4.7.6';

/** What we call of a `xen-api` client; one that a caller holds already fits. */
export interface XapiClient {
  /** `connected`, `connecting`, `disconnected`. */
  readonly status: string;
  /** Throws while disconnected. */
  readonly sessionId: string;
  /** Logs in. */
  connect(): Promise<void>;
  /** Logs out. */
  disconnect(): Promise<void>;
  /** Calls the API; the session goes in front by itself. */
  call(method: string, ...args: unknown[]): Promise<unknown>;
  /** Settles when the events say that the task ended; rejects where the client watches none. */
  watchTask(ref: string): Promise<unknown>;
}

export interface ClientOptions {
  readonly target: XapiTarget;
  readonly username: string;
  readonly password: string;
  readonly rpc: Rpc;
}

/**
 * Logs in again where the client has no session: after a failed login `xen-api` stays without one, and its calls fail
 * before they are sent. A login under way is joined.
 */
export async function reopenSession(client: XapiClient): Promise<void> {
  if (client.status === 'disconnected') return client.connect();
  if (client instanceof Xapi) return client._sessionOpen();
  throw new BackupError('HOST_UNREACHABLE', 'the client that was handed over has no session');
}

let lastName = 0;

/** A client that sends everything through `rpc`; not connected yet. */
export function createXapiClient({ target, username, password, rpc }: ClientOptions): XapiClient {
  const transport = `ours-${++lastName}`;
  transports[transport] = ({ url }) => rpc.transportTo(url);
  try {
    const port = target.port === undefined ? '' : `:${target.port}`;
    return new Xapi({
      url: `${target.protocol}//${target.hostname}${port}`,
      auth: { user: username, password },
      transport,
      callConcurrency: Number.POSITIVE_INFINITY, // limits.ts counts, over all connections to a host
      callTimeout: 2 ** 31 - 1, // rpc.ts closes the connection of a late call, which xen-api would leave open
      eventPollDelay: 2000,
      debounce: 100,
      watchEvents: ['task'],
    });
  } finally {
    delete transports[transport];
  }
}

/**
 * The value that a task returned: the host writes it as XML-RPC.
 *
 * @throws BackupError `HOST_ANSWER_INVALID`
 */
export async function parseTaskResult(result: string): Promise<unknown> {
  try {
    return await getTaskResult({ status: 'success', result, error_info: [] });
  } catch (error) {
    throw new BackupError(
      'HOST_ANSWER_INVALID',
      `expected a task's result as XML-RPC, got ${result.length} characters`,
      {
        cause: error,
      },
    );
  }
}
