import { redact } from '../core/index.ts';

/** One thing that a client asked of the simulator. */
export interface LogEntry {
  /** Milliseconds since 1970, by the simulator's clock. */
  readonly time: number;
  /** By which way it was asked. */
  readonly kind: 'call' | 'http' | 'nbd';
  /** A call's method (`VM.get_record`, `Async.VM.snapshot`), an HTTP verb; for NBD `CONNECT` or `READ`. */
  readonly method: string;
  /** Of an HTTP request, without its query; of an NBD connection the export's name. Empty for calls. */
  readonly path: string;
  /** Of an HTTP request, without `session_id`; of an NBD read its `offset` and `length`, in bytes. */
  readonly query: Readonly<Record<string, string>>;
  /** Of a call, without session and passwords; texts longer than 1000 characters are cut. */
  readonly params: readonly unknown[];
}

/** Everything that was asked, oldest first. */
export interface RequestLog {
  /** What was logged since the start, or the last `clear`. */
  readonly entries: readonly LogEntry[];
  /** Names of the calls (`VM.snapshot`, `Async.VM.snapshot` …) and HTTP requests (`GET /export`), oldest first. */
  names(): readonly string[];
  /** Forgets what was logged. */
  clear(): void;
}

/** The side of the log that the server writes to. */
export interface LogWriter extends RequestLog {
  add(entry: Partial<LogEntry> & Pick<LogEntry, 'kind' | 'method'>): void;
}

/** An empty log; `now` gives the time. */
export function createRequestLog(now: () => number): LogWriter {
  let entries: LogEntry[] = [];
  return {
    get entries() {
      return entries;
    },
    names: () => entries.map(({ kind, method, path }) => (kind === 'call' ? method : `${method} ${path}`)),
    clear() {
      entries = [];
    },
    add({ path = '', query = {}, params = [], ...entry }) {
      const { session_id: _secret, ...shown } = query;
      entries.push({ time: now(), ...entry, path: redactSession(path), query: shown, params: params.map(shorten) });
    },
  };
}

function redactSession(path: string): string {
  return path.includes('session_id') ? redact(path) : path;
}

function shorten(value: unknown): unknown {
  return typeof value === 'string' && value.length > 1000 ? `${value.slice(0, 1000)}…` : value;
}
