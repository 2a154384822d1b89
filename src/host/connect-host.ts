import {
  BackupError,
  type CallOptions,
  type Clock,
  createLog,
  HostError,
  shownAs,
  systemClock,
} from '../core/index.ts';
import { exportDisk, exportMetadata, importDisk, importMetadata } from './disk-transfers.ts';
import { createDiskUse } from './disk-use.ts';
import { createExchangeLog, type ExchangeListener } from './exchange-log.ts';
import type { AsyncCallOptions, Host } from './host.ts';
import { toBackupError } from './host-errors.ts';
import { getVm, listDisks, listVms, readFacts } from './inventory.ts';
import { type HostLimits, hostGates } from './limits.ts';
import { disableNbd, enableNbd, listNetworks } from './networks.ts';
import { type NbdContext, openNbd, tryNbd } from './open-nbd.ts';
import { parseProxy } from './proxy-tunnel.ts';
import { createRecordReader } from './record-reader.ts';
import { createRpc, parseTarget } from './rpc.ts';
import { createSession } from './session.ts';
import { createTasks } from './tasks.ts';
import { type HostTimeouts, resolveTimeouts } from './timeouts.ts';
import { createTrust, type ResolveAddress, type TlsTrust } from './trust.ts';
import { parseHostUrl } from './url.ts';
import { exportVm, importVm } from './vm-transfers.ts';
import { createXapiClient, type XapiClient } from './xapi-client.ts';
import { SESSION_OVER } from './xapi-codes.ts';

const log = createLog('host');

/** Calls that are held to `limits.snapshots`. */
const MAKES_SNAPSHOT: ReadonlySet<string> = new Set(['VM.snapshot', 'VM.snapshot_with_quiesce', 'VM.checkpoint']);

export interface ConnectHostOptions extends CallOptions {
  /** The pool's coordinator: `https://xen.example.org`. Credentials do not belong into it. */
  readonly url: string;
  /** Left out only with {@link client}. */
  readonly username?: string | undefined;
  /** Left out only with {@link client}. */
  readonly password?: string | undefined;
  /** By what the certificates of the pool's hosts are believed. @defaultValue the authorities that Node knows */
  readonly tls?: TlsTrust | undefined;
  /** @defaultValue each address is what it says */
  readonly resolveAddress?: ResolveAddress | undefined;
  /**
   * An HTTP proxy for calls, exports and imports: `http://[user:password@]proxy.example.org:3128`. It is asked to connect
   * (CONNECT) and sees what goes to which host, no more. NBD does not go through it.
   * @defaultValue none; the environment is not asked
   */
  readonly proxy?: string | undefined;
  /** Believe every certificate, and allow plain `http:`. */
  readonly insecure?: true | undefined;
  /**
   * A connected client of the `xen-api` package to make the calls with; its connection is its owner's to secure and to
   * end. Transfers still go over connections of our own, checked as `tls` says.
   */
  readonly client?: XapiClient | undefined;
  /** Who we are, in the host's list of sessions; it caps sessions by this. @defaultValue `'xen-backup-sdk'` */
  readonly originator?: string | undefined;
  /** For this process and this host; the last connection that says so wins. */
  readonly limits?: HostLimits | undefined;
  /** How long to wait for what. @defaultValue see {@link HostTimeouts} */
  readonly timeouts?: HostTimeouts | undefined;
  /** Called after each exchange with the host, without its secrets: for a transcript. */
  readonly onExchange?: ExchangeListener | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/**
 * Logs in to a pool.
 *
 * @throws BackupError `HOST_UNREACHABLE`; `HOST_CERTIFICATE_MISMATCH`, before any credential was sent
 * @throws HostError `HOST_AUTHENTICATION_FAILED`
 */
export async function connectHost(options: ConnectHostOptions): Promise<Host> {
  const { signal, clock = systemClock, originator = 'xen-backup-sdk' } = options;
  signal?.throwIfAborted();
  const xapiTarget = parseHostUrl(options.url);
  const target = parseTarget(xapiTarget);
  const proxy = options.proxy === undefined ? undefined : parseProxy(options.proxy);
  const trust = createTrust(options.tls, options.insecure, { resolve: options.resolveAddress, proxy });
  const timeouts = resolveTimeouts(options.timeouts);
  const exchanges = createExchangeLog(options.onExchange);
  const rpc = createRpc({ trust, timeouts, limits: options.limits, originator, exchanges });
  const gates = hostGates(target.host, options.limits);
  const closing = new AbortController();
  const running = new Set<() => Promise<void>>();
  const shown = target.host.includes(':') ? `[${target.host}]` : target.host;
  const label = target.port === 443 ? shown : `${shown}:${target.port}`;

  const own = options.client === undefined;
  const client = options.client ?? createXapiClient({ target: xapiTarget, ...credentials(options), rpc });
  const session = createSession(client, label);

  async function disconnect(): Promise<void> {
    closing.abort(new HostError(SESSION_OVER, [], `${label}: the connection was closed`));
    try {
      const ends = await Promise.allSettled([...running].map((finish) => finish()));
      session.end();
      if (own) {
        await client.disconnect(); // sends the logout, and does not wait
        await rpc.settle(timeouts.cleanUpMs);
      }
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    } finally {
      rpc.close();
    }
  }

  // Not closed: where the login has come through, the logout is to follow.
  const onAbort = () => rpc.interrupt(new Error('aborted'));
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    if (own) await client.connect();
    const tasks = createTasks(session, timeouts, clock);
    const records = createRecordReader(session);
    const facts = await readFacts(records);
    const context: NbdContext = {
      ...{ session, tasks, records, trust, timeouts, gates, target, clock, running, exchanges },
      limits: options.limits,
      resolveAddress: options.resolveAddress,
      diskUse: createDiskUse(session, records, timeouts, clock),
      closing: closing.signal,
    };
    signal?.throwIfAborted();
    log.debug('connected', { label, ...facts });

    let closed: Promise<void> | undefined;
    const close = () => {
      closed ??= disconnect();
      return closed;
    };
    const host: Host = {
      label,
      facts,
      call: session.call,
      async callAsync<T>(method: string, args: readonly unknown[], callOptions: AsyncCallOptions = {}) {
        if (!MAKES_SNAPSHOT.has(method)) return tasks.run<T>(method, args, callOptions);
        const release = await gates.snapshots.enter(callOptions);
        try {
          return await tasks.run<T>(method, args, callOptions);
        } finally {
          release();
        }
      },
      getRecord: records.get,
      findRecord: records.find,
      listRecords: records.list,
      listVms: () => listVms(records),
      getVm: (id) => getVm(records, id),
      listDisks: (vm) => listDisks(records, vm),
      listNetworks: () => listNetworks(records),
      enableNbd: (network) => enableNbd(session, records, network),
      disableNbd: (network) => disableNbd(session, records, network),
      exportVm: (vm, options) => exportVm(context, vm, options),
      importVm: (archive, options) => importVm(context, archive, options),
      exportDisk: (vdi, options) => exportDisk(context, vdi, options),
      importDisk: (vdi, stream, options) => importDisk(context, vdi, stream, options),
      exportMetadata: (vm, options) => exportMetadata(context, vm, options),
      importMetadata: (archive, options) => importMetadata(context, archive, options),
      openNbd: (vdi, options) => openNbd(context, vdi, options),
      tryNbd: (target, options) => tryNbd(context, target, options),
      async listChangedBlocks(from, to, callOptions) {
        const [older, newer] = await Promise.all([records.ref('VDI', from), records.get('VDI', to)]);
        const bitmap = await tasks.run<unknown>('VDI.list_changed_blocks', [older, newer.ref], callOptions);
        if (typeof bitmap !== 'string') {
          const message = `${label}: VDI.list_changed_blocks: expected a text, got ${typeof bitmap}`;
          throw new BackupError('HOST_ANSWER_INVALID', message);
        }
        return { bitmap, diskSize: newer.virtual_size };
      },
      close,
      [Symbol.asyncDispose]: close,
    };
    const { poolName, productBrand, productVersion } = facts;
    return shownAs(host, 'Host', () => ({ label, pool: poolName, product: `${productBrand} ${productVersion}` }));
  } catch (error) {
    await disconnect();
    signal?.throwIfAborted();
    throw toBackupError(error, `cannot connect to ${label}`, session.scrub);
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

function credentials({ username, password }: ConnectHostOptions): { username: string; password: string } {
  if (username === undefined || password === undefined) throw new TypeError('username and password are needed');
  return { username, password };
}
