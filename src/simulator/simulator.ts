import { X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { shownAs, systemClock } from '../core/index.ts';
import { createChangeChains } from './change-chains.ts';
import { createVm, type MadeVm, type NewVm } from './create-vm.ts';
import { createFaults, type FaultArguments, type FaultName } from './faults.ts';
import type { Restriction } from './host-facts.ts';
import { createImageStore } from './images.ts';
import { methodsOf } from './methods.ts';
import { LISTEN, type RunningHost, startPoolHost } from './pool-host.ts';
import { type NewHost, type NewNetwork, type NewStorage, setUpPool } from './pool-setup.ts';
import { type ProfileName, profiles } from './profiles.ts';
import { createRequestLog, type RequestLog } from './request-log.ts';
import { createDispatch } from './rpc.ts';
import { makeSelfSigned, type SelfSigned } from './self-signed.ts';
import { createSessions } from './sessions.ts';
import type { PoolHost, PoolRefs, Simulation, Timing } from './simulation.ts';
import { createTasks } from './tasks.ts';
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
  /**
   * How many hosts the pool has. Several have storage of their own and storage that all see, which is then the default,
   * and addresses that only `resolveAddress` leads to.
   * @defaultValue `1`
   */
  readonly hosts?: number | undefined;
  /** @defaultValue none beside the local, the shared and the ISO storage */
  readonly storages?: readonly NewStorage[] | undefined;
  /** @defaultValue two without a purpose; the first one has the hosts' own addresses */
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

/** One host of the pool. */
export interface SimulatedHost {
  /** Its reference. */
  readonly ref: string;
  /** Its uuid. */
  readonly uuid: string;
  /** Its name. */
  readonly name: string;
  /** In the eyes of the pool: what records, redirects and refusals name. */
  readonly address: string;
  /** Where it really listens: `https://127.0.0.1:<port>`. */
  readonly url: string;
  /** PEM. */
  readonly certificate: string;
  /** SHA-256 of the certificate, in Node's notation with colons. */
  readonly fingerprint256: string;
}

/** A XenServer pool in this process. */
export interface Simulator extends AsyncDisposable {
  /** `https://127.0.0.1:<port>`, without credentials. */
  readonly url: string;
  /** As asked for. */
  readonly username: string;
  /** As asked for. */
  readonly password: string;
  /** The first host's certificate, PEM. */
  readonly certificate: string;
  /** The same as SHA-256, in Node's notation with colons. */
  readonly fingerprint256: string;
  /** All of the pool, the coordinator first. */
  readonly hosts: readonly SimulatedHost[];
  /**
   * Where an address of the pool really is: hand it to `connectHost`. The hosts of a pool of several have addresses at
   * which nothing listens, as behind NAT.
   */
  resolveAddress(
    address: string,
    port: number,
  ): {
    /** An address of this machine. */
    readonly host: string;
    /** The port there. */
    readonly port: number;
  };
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
  /**
   * Makes something go wrong; the function returned takes it back.
   *
   * @throws TypeError for a name that no fault has, or without an option that it needs
   */
  fault<N extends FaultName>(name: N, ...options: FaultArguments<N>): () => void;
  /** As when the toolstack restarts: connections end, and tasks are forgotten without an event. Sessions stay. */
  restartToolstack(): void;
  /**
   * Another host, by its address, becomes the coordinator: sessions and tasks are gone, connections end, and the former
   * one answers calls with `HOST_IS_SLAVE`.
   */
  changeCoordinator(address: string): void;
  /** Ends every connection, and removes all files. */
  close(): Promise<void>;
}

/** Where a client that is not told otherwise looks for a host's NBD server (IANA). */
const NBD_PORT = 10809;
const HOSTNAME = 'simulated-host';
const YEAR_MS = 365 * 24 * 3600_000;

const DEFAULT_TIMING: Timing = { settleMs: 50, authFailureMs: 100, eventBatchMs: 50, dataDestroyWaitMs: 4000 };

/** Starts a pool that listens on a free port of this machine. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const { profile: profileName = 'xcp-ng-8.3', username = 'root', password = 'simulated' } = options;
  if (options.networks?.length === 0) throw new RangeError('networks: a pool has at least one');
  if (!Object.hasOwn(profiles, profileName)) {
    throw new RangeError(`profile: expected one of ${Object.keys(profiles).join(', ')}, got ${profileName}`);
  }
  const released = profiles[profileName];
  const profile = { ...released, restrictions: options.restrictions ?? released.restrictions };
  const clock = systemClock;
  const timing = { ...DEFAULT_TIMING, ...options.timing };
  const directory = await mkdtemp(join(tmpdir(), 'xen-simulator-'));
  const imageDirectory = join(directory, 'images');
  await mkdir(imageDirectory);
  const newHosts = hostsOf(options.hosts ?? 1);
  const files = await Promise.all(newHosts.map((host) => makeIdentity(host, clock.now())));
  const faults = createFaults();
  const images = createImageStore(imageDirectory);
  const world = createWorld({ profile, clock, faults, directory, images });
  const { refs, hosts: made } = setUpPool(world, newHosts, options.networks, options.storages);
  const log = createRequestLog(() => clock.now());
  const closing = new AbortController();
  const background = new Set<Promise<void>>();
  const failures: unknown[] = [];
  const running: RunningHost[] = [];
  const hosts = made.map((host, index): PoolHost => {
    const identity = { ...newHosts[index]!, certificate: files[index]!.certificate };
    return { ...host, identity, nbd: () => running[index]?.nbd };
  });

  const simulation: Simulation = {
    world,
    sessions: createSessions(world, { username, password }, () => refs.host),
    tasks: createTasks(world, () => refs.host),
    chains: createChangeChains(),
    timing,
    identity: hosts[0]!.identity,
    refs,
    hosts,
    log,
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

  for (const [index, { ref: host, controlDomain, identity }] of hosts.entries()) {
    const here = { ...simulation, identity, refs: { ...refs, host, controlDomain } };
    running.push(await startPoolHost(here, files[index]!, dispatch, log, (error) => failures.push(error)));
  }

  let closed: Promise<void> | undefined;
  async function shutDown(): Promise<void> {
    closing.abort(new Error('the simulator closes'));
    for (const host of running) await host.close();
    await Promise.all(background);
    await images.close();
    await rm(directory, { recursive: true, force: true });
    if (failures.length > 0) throw new AggregateError(failures, 'the simulator failed in the background');
  }
  const close = () => {
    closed ??= shutDown();
    return closed;
  };
  const shown = hosts.map(({ ref, identity: { hostname: name, address, certificate } }, index): SimulatedHost => {
    const url = `https://${LISTEN}:${running[index]!.http.port}`;
    const { fingerprint256 } = new X509Certificate(certificate);
    return { ref, uuid: world.getObject('host', ref).uuid, name, address, url, certificate, fingerprint256 };
  });
  const simulator: Simulator = {
    ...shown[0]!,
    username,
    password,
    hosts: shown,
    resolveAddress(address, port) {
      const index = newHosts.findIndex((host) => host.address === address);
      const { http, nbd } = running[index] ?? {};
      if (http === undefined) return { host: address, port };
      return { host: LISTEN, port: nbd !== undefined && [NBD_PORT, nbd.port].includes(port) ? nbd.port : http.port };
    },
    changeCoordinator(address) {
      const next = hosts.find((host) => host.identity.address === address);
      if (next === undefined) throw new RangeError(`no host of the pool has the address ${address}`);
      world.updateObject('pool', refs.pool, { master: next.ref });
      simulation.tasks.forgetAll();
      simulation.sessions.endAll();
      for (const { http } of running) http.dropConnections();
    },
    log,
    world,
    refs,
    createVm: (vm) => createVm(simulation, images, vm),
    async writeDisk(object, device, offset, bytes) {
      await world.image(findDisk(world, object, device)).write(bytes, offset);
    },
    hashDisk: (vdi) => world.image(findDisk(world, vdi, undefined)).hash(),
    fault: (name, ...faultOptions) => faults.arm(name, ...faultOptions),
    restartToolstack() {
      simulation.tasks.forgetAll();
      for (const { http } of running) http.dropConnections();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
  const { url } = simulator;
  return shownAs(simulator, 'Simulator', () => ({ profile: profileName, hosts: shown.length, url }));
}

/** The only host is at its address; several are where only `resolveAddress` finds them. */
function hostsOf(count: number): readonly NewHost[] {
  if (!Number.isInteger(count) || count < 1 || count > 16)
    throw new RangeError(`hosts: expected 1 to 16, got ${count}`);
  if (count === 1) return [{ address: LISTEN, hostname: HOSTNAME }];
  return Array.from({ length: count }, (_, index) => ({
    address: `192.0.2.${101 + index}`,
    hostname: `${HOSTNAME}-${index + 1}`,
  }));
}

function makeIdentity({ address, hostname }: NewHost, now: number): Promise<SelfSigned> {
  return makeSelfSigned({
    commonName: hostname,
    dnsNames: [hostname, `${hostname}.example`, 'localhost'],
    addresses: [address],
    notBefore: now - 24 * 3600_000,
    notAfter: now + 10 * YEAR_MS,
  });
}

/** A disk by itself, or by its machine and position. */
function findDisk(world: World, object: string, device: string | undefined): string {
  if (device === undefined) return world.refByRefOrUuid('VDI', object);
  const { VBDs } = world.getObject('VM', world.refByRefOrUuid('VM', object));
  const found = VBDs.map((vbd) => world.getObject('VBD', vbd)).find(({ userdevice }) => userdevice === device);
  if (found === undefined) throw new RangeError(`${object} has no disk at position ${device}`);
  return found.VDI;
}
