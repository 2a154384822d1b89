/** What was asked of the host, and what it answered, without secrets: see {@link HostExchange}. */
export interface HostCall {
  /** Tells it from a transfer. */
  readonly kind: 'call';
  /** ISO 8601, UTC. */
  readonly at: string;
  /** With the class, for example `VM.get_record`. */
  readonly method: string;
  /** Without the session. */
  readonly params: unknown;
  /** From the call to its answer, in milliseconds. */
  readonly durationMs: number;
  /** What the host answered, secrets left out. */
  readonly result?: unknown;
  /** The host's code and parameters, or our words for what else went wrong. */
  readonly error?: unknown;
}

/** A transfer: its request and the head of the answer, not the data. */
export interface HostRequest {
  /** Tells it from a call. */
  readonly kind: 'request';
  /** ISO 8601, UTC. */
  readonly at: string;
  /** Of HTTP: `GET` or `PUT`. */
  readonly method: string;
  /** Without the query, for example `/export_raw_vdi`. */
  readonly path: string;
  /** Without session and task. */
  readonly query: Readonly<Record<string, string>>;
  /** Of the answer. */
  readonly status: number;
  /** Of the answer. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * One exchange with a host, for a transcript: passwords, session references and the contents of virtual TPMs are left
 * out, and every reference is replaced by a number that is the same throughout one connection.
 */
export type HostExchange = HostCall | HostRequest;

/** Must not throw: what it throws changes no call; the listener is called no more, and Node prints a warning. */
export type ExchangeListener = (exchange: HostExchange) => void;

/** Takes down exchanges, if anybody listens. */
export interface ExchangeLog {
  call(
    method: string,
    params: readonly unknown[],
    startedAt: number,
    outcome: { result: unknown } | { error: unknown },
  ): void;
  request(exchange: Omit<HostRequest, 'kind' | 'at'>): void;
}

/** Calls whose answers or arguments are secret as a whole, in their asynchronous form, too. */
const SECRET_CALLS =
  /^(?:Async\.)?(?:session\.|secret\.|VTPM\.(?:get|set)_contents$|VM\.\w+_NVRAM$|host\.get_server_certificate$|pool\.join|\w+\.(?:enable|disable)_external_auth$|\w+\.\w*password$)/;
/** Members of records and of maps such as `device_config`. */
const SECRET_MEMBERS = /^(?:NVRAM|contents?|session_id|exportname)$|passw(?:or)?d|passphrase|secret|private_?key/i;
/** The result of a task may be anything, a secret too; a list of references tells nothing but itself. */
const HARMLESS_RESULT = /^(?:<\/?(?:value|array|data)\s*\/?>|OpaqueRef:[\w-]+|\s)*$/;

/** A redirect repeats our query, where a reference may be escaped. */
const ID_PARAMETER = /((?:session|task)_id(?:=|%3D))[^&\s"']+/gi;
const ANY_REF = /OpaqueRef:[\w-]+/g;

export function createExchangeLog(listener: ExchangeListener | undefined): ExchangeLog {
  if (listener === undefined) return { call() {}, request() {} };
  const numbers = new Map<string, number>();
  const pseudonym = (ref: string) => {
    if (ref === 'OpaqueRef:NULL') return ref;
    if (!numbers.has(ref)) numbers.set(ref, numbers.size + 1);
    return `OpaqueRef:${numbers.get(ref)}`;
  };
  const isSecret = (key: string, member: unknown) =>
    SECRET_MEMBERS.test(key) || (key === 'result' && !(typeof member === 'string' && HARMLESS_RESULT.test(member)));
  const clean = (value: unknown): unknown => {
    if (typeof value === 'string') return value.replace(ID_PARAMETER, '$1<left out>').replace(ANY_REF, pseudonym);
    if (Array.isArray(value)) return value.map(clean);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [clean(key), isSecret(key, member) ? '<left out>' : clean(member)]),
    );
  };
  /** A call that the host has carried out must not fail, or be repeated, because of its transcript. */
  let broken = false;
  const tell = (describe: () => HostExchange) => {
    if (broken) return;
    try {
      listener(describe());
    } catch (error) {
      broken = true;
      process.emitWarning(`the listener for exchanges with a host threw, and is called no more: ${String(error)}`);
    }
  };
  return {
    call(method, params, startedAt, outcome) {
      const secret = SECRET_CALLS.test(method);
      const [, ...rest] = params; // the first is the session
      tell(() => ({
        kind: 'call',
        at: new Date(startedAt).toISOString(),
        method,
        params: secret ? '<left out>' : clean(rest),
        durationMs: Date.now() - startedAt,
        ...('error' in outcome
          ? { error: clean(outcome.error) }
          : { result: secret ? '<left out>' : clean(outcome.result) }),
      }));
    },
    request({ query, headers, ...exchange }) {
      const { session_id: _, task_id: __, ...shown } = query;
      tell(() => ({
        kind: 'request',
        at: new Date().toISOString(),
        ...exchange,
        query: clean(shown) as Record<string, string>,
        headers: clean(headers) as Record<string, string>,
      }));
    },
  };
}
