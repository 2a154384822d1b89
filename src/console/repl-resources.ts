import { randomBytes } from 'node:crypto';
import { connectHost, type Host } from '../host/index.ts';
import { type Simulator, type SimulatorOptions, startSimulator } from '../simulator/index.ts';
import { directoryStore, memoryStore, openRepository, type Repository } from '../store/index.ts';
import type { ReplOptions } from './start-repl.ts';

const MIB = 2 ** 20;

/** What a session has opened. */
export interface Resources {
  readonly host: Host | undefined;
  readonly repository: Repository | undefined;
  readonly simulator: Simulator | undefined;
  /** Closed with the rest. */
  add(opened: { close(): Promise<void> }): void;
  /** Closes all, the last one first; goes on after a failure, and rejects with it. */
  close(): Promise<void>;
}

export async function openResources(options: ReplOptions): Promise<Resources> {
  const { simulate = false, repository: folder, signal } = options;
  const opened: { close(): Promise<void> }[] = [];
  const add = (one: { close(): Promise<void> }) => opened.push(one);
  const close = () => closeAll(opened.splice(0).reverse());
  try {
    const simulator = simulate === false ? undefined : await startSimulator(simulate === true ? {} : simulate);
    if (simulator !== undefined) add(simulator);
    const host = simulator === undefined ? await connect(options) : await connectSimulated(simulator, options);
    if (host !== undefined) add(host);
    if (simulator !== undefined && host !== undefined) await furnish(simulator, host, simulate);
    const store = folder === undefined ? simulator && memoryStore() : await directoryStore(folder);
    if (store !== undefined) add(store);
    const repository = store && (await openRepository(store, { signal }));
    return { host, repository, simulator, add, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function connect({ host, signal }: ReplOptions): Promise<Host | undefined> {
  return host && connectHost({ signal, ...host });
}

function connectSimulated(simulator: Simulator, { signal }: ReplOptions): Promise<Host> {
  const { url, username, password, hosts, resolveAddress } = simulator;
  const certificate = hosts.map((host) => host.certificate);
  return connectHost({ url, username, password, tls: { certificate }, resolveAddress, signal });
}

/** Two VMs with something on their disks, and a network for increments where the pool can make them. */
async function furnish(simulator: Simulator, host: Host, simulate: true | SimulatorOptions | false): Promise<void> {
  const web = await simulator.createVm({
    name: 'web',
    cd: 'empty',
    disks: [
      { name: 'system', size: 64 * MIB, bootable: true },
      { name: 'data', size: 128 * MIB },
    ],
  });
  await simulator.writeDisk(web.uuid, '0', 0, randomBytes(12 * MIB));
  await simulator.writeDisk(web.uuid, '1', 32 * MIB, randomBytes(6 * MIB));
  const db = await simulator.createVm({ name: 'db', disks: [{ size: 32 * MIB }], powerState: 'Halted' });
  await simulator.writeDisk(db.uuid, '0', MIB, randomBytes(4 * MIB));
  const networksAreGiven = typeof simulate === 'object' && simulate.networks !== undefined;
  const [network] = await host.listNetworks();
  if (network === undefined || networksAreGiven || host.facts.cbtMissing === 'version') return;
  await host.enableNbd(network.uuid);
}

async function closeAll(opened: readonly { close(): Promise<void> }[]): Promise<void> {
  const failures: unknown[] = [];
  for (const one of opened) {
    try {
      await one.close();
    } catch (error) {
      failures.push(error); // told below, when the others are closed
    }
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new AggregateError(failures, 'not everything could be closed');
}
