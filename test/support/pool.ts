import { join } from 'node:path';
import { connectHost, type Host } from '../../src/host/index.ts';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import { directoryStore, openRepository, type Repository } from '../../src/store/index.ts';
import { makeTempDir } from './temp-dir.ts';

/** A simulated pool with NBD on its first network, a connection to it, and an empty repository in a folder. */
export interface Pool extends AsyncDisposable {
  readonly simulator: Simulator;
  readonly host: Host;
  readonly repository: Repository;
  /** The folder of the repository. */
  readonly folder: string;
}

export interface PoolOptions extends SimulatorOptions {
  /** @defaultValue `true` */
  readonly nbd?: boolean;
}

export async function startPool({ nbd = true, ...options }: PoolOptions = {}): Promise<Pool> {
  const dir = await makeTempDir();
  const simulator = await startSimulator(options);
  try {
    const host = await connectTo(simulator);
    const [network] = await host.listNetworks();
    if (nbd && network !== undefined) await host.enableNbd(network.uuid);
    const folder = join(dir.path, 'repository');
    const repository = await openRepository(await directoryStore(folder));
    return {
      simulator,
      host,
      repository,
      folder,
      async [Symbol.asyncDispose]() {
        await host.close();
        await simulator.close();
        await dir[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await simulator.close();
    await dir[Symbol.asyncDispose]();
    throw error;
  }
}

export function connectTo({ url, username, password, certificate }: Simulator): Promise<Host> {
  return connectHost({ url, username, password, tls: { certificate } });
}
