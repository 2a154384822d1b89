import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type ConnectHostOptions, connectHost, type Host } from '../../../src/host/index.ts';
import { selfSigned, type TestCertificate } from './certificate.ts';

/** A refusal, as a method of the scripted host throws it. */
export class Refused extends Error {
  readonly params: readonly string[];
  constructor(code: string, ...params: string[]) {
    super(code);
    this.params = params;
  }
}

export interface ScriptedTask {
  status: string;
  progress: number;
  result: string;
  error_info: string[];
  name_label: string;
}

type Method = (...params: never[]) => unknown;

/** A transfer handler has the bare connection, as a host's handler has. */
export type Handler = (request: {
  readonly query: URLSearchParams;
  readonly message: IncomingMessage;
  readonly socket: TLSSocket;
  readonly task: ScriptedTask | undefined;
  /** Cuts the connection with a TCP reset. */
  readonly reset: () => void;
}) => void | Promise<void>;

export interface ScriptedHost extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly certificate: TestCertificate;
  readonly password: string;
  /** Sessions that are alive. */
  readonly sessions: Set<string>;
  readonly tasks: Map<string, ScriptedTask>;
  /** Every call, with its arguments, but for event queries. */
  readonly calls: { readonly method: string; readonly params: unknown[]; readonly address: string }[];
  /** Decrypted bytes of requests that arrived. */
  received: number;
  /** Replace or add what the host answers; arguments come without the session. */
  readonly methods: Record<string, Method>;
  /** Same for calls without a session. */
  readonly openMethods: Record<string, Method>;
  /** Handlers by path. */
  readonly handlers: Record<string, Handler>;
  endTask(ref: string, verdict: Partial<ScriptedTask>): void;
  connect(options?: Partial<ConnectHostOptions>): Promise<Host>;
}

export const HEAD_200 = 'HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n';
export const ERROR_PAGE =
  'HTTP/1.1 500 Internal Error\r\ncontent-type: text/html\r\ncontent-length: 48\r\nconnection: close\r\n\r\n' +
  '<html><body><h1>Internal Server Error</h1></body>';

let certificate: TestCertificate | undefined;

/** A host in this process that answers what a test tells it to, and little else. */
export async function scriptedHost(given?: TestCertificate): Promise<ScriptedHost> {
  certificate ??= selfSigned();
  const shown = given ?? certificate;
  const sessions = new Set<string>();
  const tasks = new Map<string, ScriptedTask>();
  const sockets = new Set<TLSSocket>();
  const waiting = new Set<() => void>();
  const rawSockets = new Map<number, Socket>();
  const password = 'correct horse';
  let taskSerial = 0;

  function endTask(ref: string, verdict: Partial<ScriptedTask>): void {
    const task = tasks.get(ref);
    if (task !== undefined) Object.assign(task, { status: 'success', progress: 1 }, verdict);
    for (const wake of waiting) wake();
  }
  const taskOf = (ref: string): ScriptedTask => {
    const task = tasks.get(ref);
    if (task === undefined) throw new Refused('HANDLE_INVALID', 'task', ref);
    return task;
  };
  function createTask(name: string): string {
    const ref = `OpaqueRef:${randomUUID()}`;
    taskSerial++;
    tasks.set(ref, { status: 'pending', progress: 0, result: '', error_info: [], name_label: name });
    return ref;
  }
  const taskRecord = (task: ScriptedTask) => ({ uuid: `task-${task.name_label}`, ...task });

  const methods: Record<string, Method> = {
    'pool.get_all_records': () => ({ 'OpaqueRef:pool': poolRecord }),
    'host.get_all_records': () => ({ 'OpaqueRef:host': { ...hostRecord, address: '127.0.0.1' } }),
    'host.get_record': () => ({ ...hostRecord, address: '127.0.0.1' }),
    'event.inject': () => '0,0',
    'task.get_all_records': () => Object.fromEntries([...tasks].map(([ref, task]) => [ref, taskRecord(task)])),
    'task.create': (name: string) => createTask(name),
    'task.get_record': (ref: string) => taskRecord(taskOf(ref)),
    'task.cancel': (ref: string) => {
      if (taskOf(ref).status === 'pending') endTask(ref, { status: 'cancelled', error_info: ['TASK_CANCELLED', ref] });
      return '';
    },
    'task.destroy': (ref: string) => {
      taskOf(ref);
      tasks.delete(ref);
      return '';
    },
  };
  const openMethods: Record<string, Method> = {
    'session.login_with_password': (user: string, given: string) => {
      if (given !== password) throw new Refused('SESSION_AUTHENTICATION_FAILED', user, 'Authentication failure');
      const session = `OpaqueRef:${randomUUID()}`;
      sessions.add(session);
      return session;
    },
    'session.logout': (session: string) => {
      sessions.delete(session);
      for (const wake of waiting) wake();
      return '';
    },
    'system.listMethods': () => ['pool.get_all_records', 'task.get_all_records'],
  };

  async function answer(method: string, params: unknown[]): Promise<unknown> {
    const open = openMethods[method];
    if (open !== undefined) return open(...(params as never[]));
    const [session, ...rest] = params as [string, ...unknown[]];
    if (!sessions.has(session)) throw new Refused('SESSION_INVALID', session);
    if (method === 'event.from') {
      const serial = taskSerial;
      await new Promise<void>((resolve) => {
        waiting.add(resolve);
        for (const socket of sockets) socket.once('close', () => resolve());
      });
      if (!sessions.has(session)) throw new Refused('SESSION_INVALID', session);
      const events = [...tasks].map(([ref, task]) => ({
        class: 'task',
        operation: 'mod',
        ref,
        snapshot: taskRecord(task),
      }));
      return { events, token: String(serial), valid_ref_counts: { task: tasks.size } };
    }
    const found = methods[method];
    if (found !== undefined) return found(...(rest as never[]));
    const background = method.startsWith('Async.') ? methods[method.slice('Async.'.length)] : undefined;
    if (background === undefined) throw new Refused('MESSAGE_METHOD_UNKNOWN', method);
    const ref = createTask(method);
    void Promise.resolve(ref)
      .then(() => background(...(rest as never[])))
      .then(
        (result) => endTask(ref, { result: `<value>${String(result)}</value>` }),
        (error: Refused) => endTask(ref, { status: 'failure', error_info: [error.message, ...error.params] }),
      );
    return ref;
  }

  const host: Partial<ScriptedHost> = {};
  const server = createServer({ cert: shown.cert, key: shown.key }, (message, response) => {
    const url = new URL(message.url ?? '/', 'https://host');
    const handler = host.handlers?.[url.pathname];
    if (handler !== undefined) {
      const task = tasks.get(url.searchParams.get('task_id') ?? '');
      const reset = () => void rawSockets.get(message.socket.remotePort ?? 0)?.resetAndDestroy();
      void handler({ query: url.searchParams, message, socket: message.socket as TLSSocket, task, reset });
      return;
    }
    const chunks: Buffer[] = [];
    message.on('data', (chunk: Buffer) => chunks.push(chunk));
    message.on('end', async () => {
      const { method, params, id } = JSON.parse(Buffer.concat(chunks).toString()) as {
        method: string;
        params: unknown[];
        id: number;
      };
      if (method !== 'event.from')
        host.calls?.push({ method, params, address: message.socket.localAddress?.replace('::ffff:', '') ?? '' });
      let body: object;
      try {
        body = { jsonrpc: '2.0', result: await answer(method, params), id };
      } catch (error) {
        const { message: code, params: data = [] } = error as Refused;
        body = { jsonrpc: '2.0', error: { code: 1, message: code, data }, id };
      }
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(body));
    });
  });
  server.on('connection', (socket: Socket) => {
    const port = socket.remotePort ?? 0;
    rawSockets.set(port, socket);
    socket.on('error', () => {}).on('close', () => rawSockets.delete(port));
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('request', (message) => {
    host.received = (host.received ?? 0) + message.rawHeaders.join('').length;
  });
  await new Promise<void>((resolve) => server.listen(0, resolve));
  const { port } = server.address() as AddressInfo;

  return Object.assign(host, {
    url: `https://127.0.0.1:${port}`,
    port,
    certificate: shown,
    password,
    sessions,
    tasks,
    calls: [],
    received: 0,
    methods,
    openMethods,
    handlers: {},
    endTask,
    connect: (options: Partial<ConnectHostOptions> = {}) =>
      connectHost({
        url: `https://127.0.0.1:${port}`,
        username: 'root',
        password,
        tls: { fingerprint256: shown.fingerprint256 },
        ...options,
      }),
    async [Symbol.asyncDispose]() {
      for (const wake of waiting) wake();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  }) as ScriptedHost;
}

const poolRecord = {
  uuid: 'd2f0c1a4-0000-4000-8000-000000000001',
  name_label: 'pool',
  master: 'OpaqueRef:host',
  default_SR: 'OpaqueRef:NULL',
  restrictions: { restrict_cbt: 'false' },
  other_config: {},
};

const hostRecord = {
  uuid: 'd2f0c1a4-0000-4000-8000-000000000002',
  name_label: 'host',
  hostname: 'host',
  enabled: true,
  software_version: { product_brand: 'XCP-ng', product_version: '8.3.0', xapi_build: '25.6.0' },
  license_params: {},
  API_version_major: 2,
  API_version_minor: 21,
};
