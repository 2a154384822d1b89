import { X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../core/index.ts';
import { createChangeChains } from './change-chains.ts';
import { createVm, type MadeVm, type NewVm } from './create-vm.ts';
import { createFaults, type FaultName, type FaultOptions, type FaultTimes } from './faults.ts';
import { handlers } from './handlers.ts';
import type { Restriction } from './host-facts.ts';
import { listen } from './http-server.ts';
import { createImageStore } from './images.ts';
import { answerCall, parseCall } from './json-rpc.ts';
import { methodsOf } from './methods.ts';
import { startNbdServer } from './nbd-service.ts';
import { type NewNetwork, setUpPool } from './pool-setup.ts';
import { type ProfileName, profiles } from './profiles.ts';
import { createRequestLog, type RequestLog } from './request-log.ts';
import { createDispatch } from './rpc.ts';
import { makeSelfSigned } from './self-signed.ts';
import { createSessions } from './sessions.ts';
import type { NbdEndpoint, PoolRefs, Simulation, Timing } from './simulation.ts';
import { createTasks } from './tasks.ts';
import { createTransfers } from './transfer.ts';
import type { World } from './world.ts';
import { createWorld } from './world-state.ts';

/** How the simulated pool is. */
export interface SimulatorOptions {
  /**
   * Which release it plays.
   * @defaultValue `'xcp-ng-8.3'`
   */
  readonly profile?: ProfileName | undefined;
  /**
   * What the licence forbids, for example `['restrict_cbt']`.
   * @defaultValue nothing
   */
  readonly restrictions?: readonly Restriction[] | undefined;
  /** @defaultValue two without a purpose; the first one has the host's real address */
  readonly networks?: readonly NewNetwork[] | undefined;
  /** @defaultValue `'root'` */
  readonly username?: string | undefined;
  /** @defaultValue `'simulated'` */
  readonly password?: string | undefined;
  /**
   * How slow the host is where real hosts are.
   * @defaultValue short waits that still show: 50 ms until a disk is free again
   */
  readonly timing?: Partial<Timing> | undefined;
}

/** A XenServer pool of one host in this process. */
export interface Simulator extends AsyncDisposable {
  /** `https://127.0.0.1:<port>`, without credentials. */
  readonly url: string;
  readonly username: string;
  readonly password: string;
  /** The host's certificate, PEM. */
  readonly certificate: string;
  /** The same as SHA-256, in Node's notation with colons. */
  readonly fingerprint256: string;
  /** Every call and HTTP request since the start, without secrets. */
  readonly log: RequestLog;
  /** The pool's state, for tests that must reach behind the API. */
  readonly world: World;
  /** Makes a machine with disks behind the API, as its user would have made it. */
  createVm(options?: NewVm): Promise<MadeVm>;
  /**
   * Writes as the guest would.
   * @param object - reference or uuid of a VDI, or of a VM with `device` naming one of its disks
   * @param offset - in bytes
   */
  writeDisk(object: string, device: string | undefined, offset: number, bytes: Uint8Array): Promise<void>;
  /** SHA-256 of a VDI (reference or uuid), lower-case hex. */
  hashDisk(vdi: string): Promise<string>;
  /** The objects that every pool has. */
  readonly refs: PoolRefs;
  /** Makes something go wrong; the function returned takes it back. */
  fault<N extends FaultName>(name: N, options: FaultOptions[N] & FaultTimes): () => void;
  /** As when the toolstack restarts: connections end, and tasks are forgotten without an event. Sessions stay. */
  restartToolstack(): void;
  /** Ends every connection, and removes all files. */
  close(): Promise<void>;
}

const ADDRESS = '127.0.0.1';
const HOSTNAME = 'simulated-host';
const YEAR_MS = 365 * 24 * 3600_000;

const DEFAULT_TIMING: Timing = { settleMs: 50, authFailureMs: 100, eventBatchMs: 50, dataDestroyWaitMs: 4000 };

/** Starts a pool that listens on a free port of this machine. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const { profile: profileName = 'xcp-ng-8.3', username = 'root', password = 'simulated' } = options;
  if (options.networks?.length === 0) throw new RangeError('networks: a pool has at least one');
  const released = profiles[profileName];
  const profile = { ...released, restrictions: options.restrictions ?? released.restrictions };
  const clock = systemClock;
  const timing = { ...DEFAULT_TIMING, ...options.timing };
  const directory = await mkdtemp(join(tmpdir(), 'xen-simulator-'));
  const imageDirectory = join(directory, 'images');
  await mkdir(imageDirectory);
  const identityFiles = await makeSelfSigned({
    commonName: HOSTNAME,
    dnsNames: [HOSTNAME, `${HOSTNAME}.example`, 'localhost'],
    addresses: [ADDRESS],
    notBefore: clock.now() - 24 * 3600_000,
    notAfter: clock.now() + 10 * YEAR_MS,
  });
  const faults = createFaults();
  const images = createImageStore(imageDirectory);
  const world = createWorld({ profile, clock, faults, directory, images });
  const refs = setUpPool(world, { address: ADDRESS, hostname: HOSTNAME }, options.networks);
  const log = createRequestLog(() => clock.now());
  const closing = new AbortController();
  const background = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let nbd: NbdEndpoint | undefined;

  const simulation: Simulation = {
    world,
    sessions: createSessions(world, { username, password }, () => refs.host),
    tasks: createTasks(world, () => refs.host),
    chains: createChangeChains(),
    timing,
    identity: { address: ADDRESS, hostname: HOSTNAME, certificate: identityFiles.certificate },
    refs,
    log,
    nbd: () => nbd,
    closing: closing.signal,
    inBackground(work) {
      const promise = work(closing.signal)
        .catch((error: unknown) => {
          if (!closing.signal.aborted) failures.push(error);
        })
        .finally(() => background.delete(promise));
      background.add(promise);
    },
  };
  const dispatch = createDispatch(simulation, methodsOf(profile));

  const server = await listen(ADDRESS, identityFiles, profile.headLimit, {
    async call(body, gone, drop) {
      const call = parseCall(body);
      log.add({ kind: 'call', method: call.method, params: shownParams(call.method, call.params) });
      const fault = faults.take('drop-connection', ({ method }) => method === call.method);
      if (fault !== undefined && fault.when !== 'after') drop();
      else {
        const answer = await answerCall(call, dispatch, profile, AbortSignal.any([gone, closing.signal]));
        if (fault === undefined) return answer;
        drop();
      }
      throw new Error('connection dropped on demand');
    },
    transfer: createTransfers(simulation, handlers, log),
    report: (error) => failures.push(error),
  });

  const nbdServer = await startNbdServer(simulation, identityFiles, log);
  nbd = { address: ADDRESS, port: nbdServer.port };

  let closed: Promise<void> | undefined;
  async function shutDown(): Promise<void> {
    closing.abort(new Error('the simulator closes'));
    await server.close();
    await nbdServer.close();
    await Promise.all(background);
    await images.close();
    await rm(directory, { recursive: true, force: true });
    if (failures.length > 0) throw new AggregateError(failures, 'the simulator failed in the background');
  }
  const close = () => {
    closed ??= shutDown();
    return closed;
  };
  return {
    url: `https://${ADDRESS}:${server.port}`,
    username,
    password,
    certificate: identityFiles.certificate,
    fingerprint256: new X509Certificate(identityFiles.certificate).fingerprint256,
    log,
    world,
    refs,
    createVm: (vm) => createVm(simulation, images, vm),
    async writeDisk(object, device, offset, bytes) {
      await world.image(findDisk(world, object, device)).write(bytes, offset);
    },
    hashDisk: (vdi) => world.image(findDisk(world, vdi, undefined)).hash(),
    fault: (name, faultOptions) => faults.arm(name, faultOptions),
    restartToolstack() {
      simulation.tasks.forgetAll();
      server.dropConnections();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A disk by itself, or by its machine and position. */
function findDisk(world: World, object: string, device: string | undefined): string {
  if (device === undefined) return world.refByRefOrUuid('VDI', object);
  const { VBDs } = world.getObject('VM', world.refByRefOrUuid('VM', object));
  const found = VBDs.map((vbd) => world.getObject('VBD', vbd)).find(({ userdevice }) => userdevice === device);
  if (found === undefined) throw new RangeError(`${object} has no disk at position ${device}`);
  return found.VDI;
}

/** Parameters as the log may show them: no session, no password. */
function shownParams(method: string, params: readonly unknown[]): readonly unknown[] {
  if (method === 'session.login_with_password') return params.filter((_, index) => index !== 1);
  return typeof params[0] === 'string' && params[0].startsWith('OpaqueRef:') ? params.slice(1) : params;
}
