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

export function createSession(client: XapiClient, label: string): Session {
  const references = new Set<string>();
  let ended = false;

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
    log.debug('logging in again', { label });
    try {
      await reopenSession(client);
    } catch (error) {
      throw toBackupError(error, doing, scrub);
    }
    const renewed = current();
    if (renewed === undefined) throw new HostError(SESSION_OVER, [], `${doing}: no session`, { retryable: true });
    return renewed;
  }

  return {
    label,
    scrub,
    async call<T>(method: string, ...args: unknown[]): Promise<T> {
      const doing = `${label}: ${method}`;
      await reference(doing);
      try {
        return (await client.call(method, ...args)) as T;
      } catch (error) {
        current(); // a login in between has a reference of its own
        throw toBackupError(error, doing, scrub);
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
