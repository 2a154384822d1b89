import {
  abortable,
  anySignal,
  BackupError,
  type CallOptions,
  createLog,
  HostError,
  retry,
  shownAs,
} from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import { connectNbd, listNbdExports, type NbdDisk, NbdError } from '../nbd-protocol/index.ts';
import type { NbdTarget, NbdTrial, ObjectId, OpenNbdOptions } from './host.ts';
import { type HostLimits, hostGates } from './limits.ts';
import { findNetwork, listNetworks } from './networks.ts';
import type { Ref, VdiRecord } from './records.ts';
import type { TransferContext } from './transfer.ts';
import { type ResolveAddress, wayTo } from './trust.ts';
import { NOT_OFFERED } from './xapi-codes.ts';

const log = createLog('host:nbd');

/** With the old export name; beyond these we ask the host again, which has a new one if the session changed. */
const RECONNECT = { tries: 2, delayMs: 500 };

/** How often a read that failed for good on its connections is tried over new ones. */
const REOPENINGS = 2;

/** One way to read a disk, as `VDI.get_nbd_info` gives it. `exportname` holds the session's reference. */
interface NbdInfo {
  readonly exportname: string;
  readonly address: string;
  readonly port: number;
  readonly cert: string;
  readonly subject: string;
}

/** What reading over NBD needs beside what transfers need. */
export interface NbdContext extends TransferContext {
  readonly limits: HostLimits | undefined;
  readonly resolveAddress: ResolveAddress | undefined;
}

/**
 * Opens a disk that no running VM writes to.
 *
 * @throws BackupError `NBD_UNAVAILABLE` with the reason
 * @throws NbdError where connecting fails
 */
export async function openNbd(context: NbdContext, id: ObjectId, options: OpenNbdOptions = {}): Promise<Disk> {
  options.signal?.throwIfAborted();
  const vdi = await context.records.get('VDI', id);
  const letGo = context.diskUse.begin(vdi.ref);
  let current: NbdDisk;
  try {
    const signal = anySignal(options.signal, context.closing);
    current = await connect(context, vdi, { ...options, signal });
    if (context.closing.aborted) {
      // The connection was closed in the moment in which the disk was open: nobody else will close it.
      await current.close();
      throw context.closing.reason;
    }
  } catch (error) {
    await letGo();
    throw error;
  }
  const { size } = current;
  const stop = new AbortController();
  let reopening: Promise<void> | undefined;
  /** Given up: it is being replaced, or could not be. */
  let broken: NbdDisk | undefined;
  let closed: Promise<void> | undefined;

  /**
   * With the information of now: the session in the old export name may be over. Readers share one reopening, so none
   * of their signals ends it.
   */
  async function reopen(): Promise<void> {
    broken = current;
    await broken.close();
    const fresh = await connect(context, vdi, { ...options, signal: anySignal(context.closing, stop.signal) });
    if (fresh.size !== size) {
      await fresh.close();
      throw new BackupError('HOST_ANSWER_INVALID', `disk ${vdi.uuid}: expected ${size} bytes again, got ${fresh.size}`);
    }
    current = fresh;
  }

  function reopenOnce(): void {
    reopening ??= reopen().finally(() => {
      reopening = undefined;
    });
  }

  async function readInto(target: Uint8Array, offset: number, callOptions: CallOptions = {}): Promise<void> {
    const { signal } = callOptions;
    await context.gates.pace.pass(target.byteLength, context.clock, { signal });
    for (let reopenings = 0; ; reopenings++) {
      if (broken === current && closed === undefined) reopenOnce();
      if (reopening !== undefined) await abortable(reopening, signal);
      const disk = current;
      try {
        return await disk.readInto(target, offset, callOptions);
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof NbdError) || !error.retryable || reopenings === REOPENINGS || closed !== undefined) {
          throw error;
        }
        log.debug('reading over new connections', { vdi: vdi.uuid, code: error.code });
        if (disk !== current) continue; // another reader was quicker
        options.onRetry?.(error, reopenings + 1, 0);
        reopenOnce();
      }
    }
  }

  const close = () => {
    closed ??= (async () => {
      context.running.delete(close);
      stop.abort(new BackupError('ABORTED', `disk ${vdi.uuid}: closed`));
      await reopening?.catch(() => {}); // its reader has the failure
      try {
        await current.close();
      } finally {
        await letGo();
      }
    })();
    return closed;
  };
  context.running.add(close);

  const opened: Disk = {
    size,
    readInto,
    extents: (range) => current.extents(range),
    close,
    [Symbol.asyncDispose]: close,
  };
  return shownAs(opened, 'Disk', () => ({ of: 'VDI over NBD', size, vdiUuid: vdi.uuid }));
}

/** NBD's own port (IANA), where the host does not tell. */
const NBD_PORT = 10809;

/** What a trial reads, in bytes. */
const FIRST_BLOCK = 65_536;

/** Tries one NBD server: see `Host.tryNbd`. */
export async function tryNbd(context: NbdContext, target: NbdTarget, options: CallOptions = {}): Promise<NbdTrial> {
  const { session, records, closing, clock, limits, diskUse } = context;
  const signal = anySignal(options.signal, closing);
  signal?.throwIfAborted();
  const { address } = target;
  const vdi = target.vdi === undefined ? undefined : await records.get('VDI', target.vdi);
  const { port, exportname, cert } = vdi === undefined ? await standardWay() : await wayOf(vdi);
  const gates = hostGates(address, limits);
  const nbd = {
    profile: 'xenserver' as const,
    ...wayTo({ host: address, port }, context.resolveAddress),
    connections: 1,
    reconnect: { tries: 1 },
    clock,
    tls: { certificate: cert },
    acquireSlot: (waiting?: AbortSignal) => gates.nbdConnections.enter({ signal: waiting }),
    awaitTurn: (waiting?: AbortSignal) => gates.nbdOpening.enter({ signal: waiting }),
    signal,
  };
  if (vdi === undefined || target.read !== true) {
    await listNbdExports(nbd).catch((error: unknown) => {
      // A XenServer lists nothing, and says so inside TLS: more is not to be had without a disk.
      if (!(error instanceof NbdError) || error.code !== 'NBD_REFUSED') throw error;
    });
    return { port, bytesRead: 0 };
  }
  const letGo = diskUse.begin(vdi.ref);
  try {
    await using disk = await connectNbd({ ...nbd, exportName: exportname });
    const block = new Uint8Array(Math.min(FIRST_BLOCK, disk.size));
    await disk.readInto(block, 0, { signal });
    return { port, bytesRead: block.byteLength };
  } finally {
    await letGo();
  }

  async function standardWay(): Promise<Pick<NbdInfo, 'port' | 'exportname' | 'cert'>> {
    const cert = await session.call<string>('host.get_server_certificate', await records.ref('host', target.host));
    return { port: NBD_PORT, exportname: '', cert };
  }

  async function wayOf({ ref, uuid }: VdiRecord): Promise<NbdInfo> {
    const unavailable = (reason: string) =>
      new BackupError('NBD_UNAVAILABLE', `${session.label}: disk ${uuid} cannot be read at ${address}: ${reason}`);
    const ways = await askForWays(context, ref, unavailable);
    const way = ways.find((one) => one.address === address && isWellFormed(one));
    if (way === undefined) throw unavailable('the pool does not offer it there');
    return way;
  }
}

/** An end before the greeting means that the host's connections are taken, or its firewall is slow: wait. */
async function connect(context: NbdContext, vdi: VdiRecord, options: OpenNbdOptions): Promise<NbdDisk> {
  return retry(() => connectOnce(context, vdi, options), {
    when: (error) => error instanceof NbdError && error.retryable,
    onRetry: (error, attempt, waitMs) => {
      log.debug('cannot connect yet', { attempt, code: (error as NbdError).code });
      options.onRetry?.(error, attempt, waitMs);
    },
    ...{ clock: context.clock, signal: options.signal },
  });
}

/** The first address that works; one after another, because parallel attaches of one disk leave it stuck. */
async function connectOnce(context: NbdContext, vdi: VdiRecord, options: OpenNbdOptions): Promise<NbdDisk> {
  const { ways, secure } = await findWays(context, vdi, options);
  let failure: unknown;
  for (const { address, port, exportname, cert } of ways) {
    options.signal?.throwIfAborted();
    const gates = hostGates(address, context.limits);
    try {
      return await connectNbd({
        profile: 'xenserver',
        ...wayTo({ host: address, port }, context.resolveAddress),
        exportName: exportname,
        connections: options.connections ?? 2,
        reconnect: RECONNECT,
        onRetry: options.onRetry,
        clock: context.clock,
        ...(secure ? { tls: { certificate: cert } } : {}),
        acquireSlot: (signal) => gates.nbdConnections.enter({ signal }),
        awaitTurn: (signal) => gates.nbdOpening.enter({ signal }),
        signal: options.signal,
      });
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof NbdError)) throw error;
      log.debug('an address does not serve', { address, code: error.code });
      failure ??= error;
    }
  }
  throw failure;
}

async function findWays(
  context: NbdContext,
  vdi: VdiRecord,
  options: OpenNbdOptions,
): Promise<{ ways: readonly NbdInfo[]; secure: boolean }> {
  const { session, records } = context;
  const unavailable = (reason: string, facts = {}) =>
    new BackupError('NBD_UNAVAILABLE', `${session.label}: disk ${vdi.uuid} cannot be read over NBD: ${reason}`, {
      facts,
    });

  const networks = await listNetworks(records);
  const secure = networks.some(({ purposes }) => purposes.includes('nbd'));
  if (!secure && !networks.some(({ purposes }) => purposes.includes('insecure_nbd'))) {
    throw unavailable('no network has the purpose nbd; see enableNbd');
  }
  if (!secure && options.insecure !== true) {
    throw unavailable('the pool offers it without TLS only; give a network the purpose nbd, or say insecure: true');
  }
  const ways = (await askForWays(context, vdi.ref, unavailable)).filter(isWellFormed);
  if (ways.length === 0) throw unavailable('no host that sees its storage has an address on a network for NBD');
  const usable = options.network === undefined ? ways : await onNetwork(ways, options.network);
  if (usable.length === 0) {
    throw unavailable(`no address on network ${JSON.stringify(options.network)}`, {
      addresses: ways.map(({ address }) => address),
    });
  }
  // The host lists its IPv6 addresses, too, but its server listens on IPv4 only.
  return { ways: [...usable].sort((a, b) => Number(isIpv6(a)) - Number(isIpv6(b))), secure };

  async function onNetwork(all: readonly NbdInfo[], network: ObjectId): Promise<readonly NbdInfo[]> {
    const { uuid } = await findNetwork(records, network);
    const found = networks.find((candidate) => candidate.uuid === uuid);
    return all.filter(({ address }) => found?.addresses.some((known) => known.address === address));
  }
}

async function askForWays(
  { session }: NbdContext,
  vdi: Ref,
  unavailable: (reason: string) => BackupError,
): Promise<readonly NbdInfo[]> {
  try {
    return await session.call<readonly NbdInfo[]>('VDI.get_nbd_info', vdi);
  } catch (error) {
    if (error instanceof HostError && NOT_OFFERED.has(error.xapiCode)) {
      throw unavailable('it needs XenServer 7.3 or XCP-ng');
    }
    throw error;
  }
}

const isIpv6 = ({ address }: NbdInfo) => address.includes(':');

function isWellFormed({ address, port, exportname, cert }: NbdInfo): boolean {
  const texts = [address, exportname, cert].every((text) => typeof text === 'string' && text !== '');
  return texts && Number.isInteger(Number(port)) && Number(port) > 0 && Number(port) < 65536;
}
