import { request } from 'node:https';
import { createRequire } from 'node:module';
import type { Simulator } from '../../src/simulator/index.ts';

/** The package as its authors published it: `require` goes past the replacements that our build and tests make. */
const { createClient } = createRequire(import.meta.url)('xen-api') as {
  createClient(options: Readonly<Record<string, unknown>>): XapiClient;
};

/** The members of a `xen-api` client that these tests use; the package has no types of its own. */
export interface XapiClient {
  readonly pool: XapiObject;
  readonly sessionId: string;
  readonly objectsFetched: Promise<void>;
  readonly objects: { on(event: string, listener: (objects: Record<string, XapiObject | undefined>) => void): void };
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  call(method: string, ...args: readonly unknown[]): Promise<unknown>;
  callAsync(method: string, ...args: readonly unknown[]): Promise<unknown>;
  getResource(path: string, options: ResourceOptions): Promise<{ readonly body: AsyncIterable<Uint8Array> }>;
  putResource(body: Uint8Array, path: string, options: ResourceOptions): Promise<unknown>;
}

interface ResourceOptions {
  readonly query: Readonly<Record<string, string>>;
  /** Makes a task and waits for its end. */
  readonly task: true;
}

export interface XapiObject {
  readonly $ref: string;
  readonly $type: string;
  readonly name_label: string;
  readonly [field: string]: unknown;
}

/** A connected, unchanged `xen-api` client that watches events; disposing it logs out. */
export async function connect(
  { url, username, password }: Simulator,
  options: Readonly<Record<string, unknown>> = {},
): Promise<AsyncDisposable & { readonly xapi: XapiClient }> {
  const xapi = createClient({
    url,
    auth: { user: username, password },
    allowUnauthorized: true,
    debounce: 10,
    ...options,
  });
  await xapi.connect();
  return { xapi, [Symbol.asyncDispose]: () => xapi.disconnect() };
}

/** What came back over HTTP. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** One HTTPS request that trusts exactly the simulator's certificate. */
export function send(
  { url, certificate }: Simulator,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string | Uint8Array } = {},
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { body, ...rest } = options;
  const sent = request(new URL(path, url), { ca: certificate, agent: false, ...rest }, (response) => {
    const chunks: Uint8Array[] = [];
    response.on('data', (chunk: Uint8Array) => chunks.push(chunk));
    response.on('end', () =>
      resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) }),
    );
    response.on('error', reject);
  });
  sent.on('error', reject);
  sent.end(body);
  return promise;
}

/** What a call answered with instead of a result. */
export class CallError extends Error {
  readonly code: string;
  readonly params: readonly string[];

  constructor(code: string, params: readonly string[]) {
    super(`${code}(${params.join(', ')})`);
    this.code = code;
    this.params = params;
  }
}

/** A bare JSON-RPC 2 session. */
export interface RpcSession {
  readonly session: string;
  call<T = unknown>(method: string, ...params: readonly unknown[]): Promise<T>;
  /** The `Async` form: resolves with the task's result as XML-RPC text. */
  callAsync(method: string, ...params: readonly unknown[]): Promise<string>;
  /** Waits until a task has ended. */
  endOf(task: string): Promise<TaskRecord>;
}

/** The members of a task's record that tests look at. */
export interface TaskRecord {
  readonly status: string;
  readonly result: string;
  readonly error_info: readonly string[];
  readonly progress: number;
}

/** Makes one call without a session. */
export async function callOnce<T>(simulator: Simulator, method: string, ...params: readonly unknown[]): Promise<T> {
  const body = JSON.stringify({ jsonrpc: '2.0', method, params, id: 1 });
  const headers = { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) };
  const answer = await send(simulator, '/jsonrpc', { method: 'POST', headers, body });
  const { result, error } = JSON.parse(answer.body.toString()) as {
    result: T;
    error?: { message: string; data: string[] };
  };
  if (error !== undefined) throw new CallError(error.message, error.data);
  return result;
}

/** Logs in without any client library. */
export async function logIn(simulator: Simulator): Promise<RpcSession> {
  const { username, password } = simulator;
  const session = await callOnce<string>(simulator, 'session.login_with_password', username, password, '1.0', 'tests');
  const call = <T>(method: string, ...params: readonly unknown[]) => callOnce<T>(simulator, method, session, ...params);
  async function endOf(task: string): Promise<TaskRecord> {
    for (let token = ''; ; ) {
      const record = await call<TaskRecord>('task.get_record', task);
      if (record.status !== 'pending') return record;
      ({ token } = await call<{ token: string }>('event.from', [`task/${task}`], token, 30));
    }
  }
  return {
    session,
    call,
    endOf,
    async callAsync(method, ...params) {
      const { status, result, error_info } = await endOf(await call<string>(`Async.${method}`, ...params));
      if (status !== 'success') throw new CallError(error_info[0] ?? status, error_info.slice(1));
      return result;
    },
  };
}
