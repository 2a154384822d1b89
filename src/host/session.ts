import { createLog, HostError, redact } from '../core/index.ts';
import { type Scrub, toBackupError } from './host-errors.ts';
import { reopenSession, type XapiClient } from './xapi-client.ts';
import { SESSION_OVER } from './xapi-codes.ts';

const log = createLog('host:session');

/** Calls through one client, with our errors and without a trace of the session's reference. */
export interface Session {
  /** Where it is, without credentials, for messages. */
  readonly label: string;
  call<T = unknown>(method: string, ...args: unknown[]): Promise<T>;
  /** The reference to show to the HTTP handlers; never for a message. */
  reference(): Promise<string>;
  /** Resolves once the events say that the task ended, or that nobody will tell. Never rejects. */
  taskBell(task: string): Promise<void>;
  readonly scrub: Scrub;
  /** From here on every call is refused. */
  end(): void;
}

/** How often a call is sent that no host carries out. */
const MOST_TRIES = 4;

/** Was the call not even sent? `xen-api` asserts that it has a session, and has none while it logs in again. */
function isUnsent(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ERR_ASSERTION';
}

export function createSession(client: XapiClient, label: string): Session {
  const references = new Set<string>();
  let ended = false;
  let renewal: Promise<void> | undefined;

  /** The running session's reference, if there is one. */
  function current(): string | undefined {
    if (client.status !== 'connected') return undefined;
    const reference = client.sessionId as string | undefined; // undefined after a login that failed
    if (reference !== undefined && !references.has(reference)) references.add(reference);
    return reference;
  }

  function scrub(text: string): string {
    let clean = text;
    for (const reference of references) clean = clean.replaceAll(reference, '<session>');
    return clean;
  }

  async function reference(doing: string): Promise<string> {
    if (ended) throw new HostError(SESSION_OVER, [], `${doing}: the connection was closed`);
    const running = current();
    if (running !== undefined) return running;
    try {
      await renew(undefined);
    } catch (error) {
      throw toBackupError(error, doing, scrub);
    }
    const renewed = current();
    if (renewed === undefined) throw new HostError(SESSION_OVER, [], `${doing}: no session`, { retryable: true });
    return renewed;
  }

  /** Logs in again, once for all who found that `old` is of no use, unless somebody has done so already. */
  function renew(old: string | undefined): Promise<void> {
    const running = current();
    if (renewal === undefined && running !== undefined && running !== old) return Promise.resolve();
    if (renewal === undefined) log.debug('logging in again', { label });
    renewal ??= reopenSession(client).finally(() => {
      renewal = undefined;
    });
    return renewal;
  }

  return {
    label,
    scrub,
    async call<T>(method: string, ...args: unknown[]): Promise<T> {
      const doing = `${label}: ${method}`;
      for (let tries = 1; ; tries++) {
        const used = await reference(doing);
        try {
          return (await client.call(method, ...args)) as T;
        } catch (error) {
          current(); // a login in between has a reference of its own
          const failure = toBackupError(error, doing, scrub);
          if (tries === MOST_TRIES) throw failure;
          if (isUnsent(error)) continue;
          if (!(failure instanceof HostError) || failure.xapiCode !== 'HOST_IS_SLAVE') throw failure;
          // Nothing was done: another host has become the coordinator, and the login finds it.
          log.debug('the coordinator has changed', { label, to: failure.xapiParams[0] });
          await renew(used).catch((reason: unknown) => {
            throw toBackupError(reason, doing, scrub);
          });
        }
      }
    },
    reference: () => reference(label),
    async taskBell(task) {
      try {
        await client.watchTask(task);
      } catch (error) {
        log.debug('the watch over a task ended', { reason: redact(scrub(String(error))) });
      }
    },
    end() {
      ended = true;
    },
  };
}
