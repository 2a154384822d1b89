import type { ChangeChains } from './change-chains.ts';
import type { RequestLog } from './request-log.ts';
import type { Sessions } from './sessions.ts';
import type { Tasks } from './tasks.ts';
import type { World } from './world.ts';

/** How long the simulated host takes for what real hosts are slow at, in milliseconds. */
export interface Timing {
  /** How long a disk stays busy after a transfer let go of it. */
  readonly settleMs: number;
  /** The wait before a bad password is refused. */
  readonly authFailureMs: number;
  /** `event.from` gathers changes for this long before it answers. */
  readonly eventBatchMs: number;
  /** How long `VDI.data_destroy` waits for VBDs to go. */
  readonly dataDestroyWaitMs: number;
}

/** Who the host is, for records and certificates. */
export interface HostIdentity {
  readonly address: string;
  readonly hostname: string;
  readonly certificate: string;
}

/** Where the NBD server listens. */
export interface NbdEndpoint {
  readonly address: string;
  readonly port: number;
}

/** A host of the pool, as the others see it. */
export interface PoolHost {
  readonly ref: string;
  readonly controlDomain: string;
  readonly identity: HostIdentity;
  /** Set once its NBD server listens. */
  readonly nbd: () => NbdEndpoint | undefined;
}

/** References to the objects that every pool has. */
export interface PoolRefs {
  /** The pool. */
  readonly pool: string;
  /** The host at which something is done; of the pool as a whole the first one. */
  readonly host: string;
  /** Of that host. */
  readonly controlDomain: string;
  /** The network with the hosts' addresses. */
  readonly network: string;
  /** Where disks go that name no storage. */
  readonly defaultSr: string;
  /** The storage of ISOs. */
  readonly isoSr: string;
}

/** The running simulator, as its parts see it. */
export interface Simulation {
  readonly world: World;
  readonly sessions: Sessions;
  readonly tasks: Tasks;
  readonly chains: ChangeChains;
  readonly timing: Timing;
  /** Of the host at which something is done. */
  readonly identity: HostIdentity;
  readonly refs: PoolRefs;
  /** All of the pool's. */
  readonly hosts: readonly PoolHost[];
  readonly log: RequestLog;
  /** Fires when the simulator closes. */
  readonly closing: AbortSignal;
  /** Runs in the background until the simulator closes; a failure other than the closing is reported at `close()`. */
  inBackground(work: (signal: AbortSignal) => Promise<void>): void;
}
