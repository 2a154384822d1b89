import PQueue from 'p-queue';
import type { CallOptions } from '../core/index.ts';
import { createPace, type Pace } from './pace.ts';

/** How much this process asks of one host at a time, over all its connections. */
export interface HostLimits {
  /** Calls in flight. @defaultValue `20` */
  readonly calls?: number | undefined;
  /** Exports, and as many imports: an import may read from an export, and must not wait for its slot. @defaultValue `4` */
  readonly transfers?: number | undefined;
  /**
   * NBD connections; a host serves 16 to all its clients. Opening a disk waits while all are taken, until its `signal`
   * fires: who needs several disks open at the same time needs as many. @defaultValue `8`
   */
  readonly nbdConnections?: number | undefined;
  /** Snapshots being taken: each makes the storage work for all its VMs. @defaultValue `4` */
  readonly snapshots?: number | undefined;
  /** Of all transfers and reads over NBD together, either way. @defaultValue no limit */
  readonly bytesPerSecond?: number | undefined;
}

/** Something limited. */
export interface Gate {
  /** Waits for a slot; the caller gives it back by calling what it gets, once or more often. */
  enter(options?: CallOptions): Promise<() => void>;
  /** A slot if one is free right now. */
  tryEnter(): (() => void) | undefined;
  readonly taken: number;
}

export interface HostGates {
  readonly calls: Gate;
  readonly exports: Gate;
  readonly imports: Gate;
  readonly nbdConnections: Gate;
  /** One at a time: a host attaches a disk for each NBD connection, and parallel attaches leave disks stuck. */
  readonly nbdOpening: Gate;
  readonly snapshots: Gate;
  readonly pace: Pace;
}

interface AdjustableGate extends Gate {
  limit: number;
}

/** What a host can serve at all. Source: xapi-project/xen-api `ocaml/nbd/lib/consts.ml`. */
const MAX_NBD_CONNECTIONS = 16;

type Adjustable = { readonly [K in keyof HostGates]: K extends 'pace' ? Pace : AdjustableGate };

const gatesByAddress = new Map<string, Adjustable>();

/**
 * The gates of a host: the same ones for the same address, in the whole process. A limit that is given replaces the old
 * one.
 */
export function hostGates(address: string, limits: HostLimits = {}): HostGates {
  const gates: Adjustable = gatesByAddress.get(address) ?? {
    calls: createGate(20),
    exports: createGate(4),
    imports: createGate(4),
    nbdConnections: createGate(8),
    nbdOpening: createGate(1),
    snapshots: createGate(4),
    pace: createPace(),
  };
  gatesByAddress.set(address, gates);
  for (const name of ['calls', 'transfers', 'nbdConnections', 'snapshots'] as const) {
    const limit = limits[name];
    if (limit === undefined) continue;
    const most = name === 'nbdConnections' ? MAX_NBD_CONNECTIONS : 1000;
    if (!Number.isSafeInteger(limit) || limit < 1 || limit > most) {
      throw new RangeError(`limits.${name}: expected 1 to ${most}, got ${limit}`);
    }
    for (const gate of name === 'transfers' ? [gates.exports, gates.imports] : [gates[name]]) gate.limit = limit;
  }
  const { bytesPerSecond } = limits;
  if (bytesPerSecond !== undefined) {
    if (!(bytesPerSecond > 0))
      throw new RangeError(`limits.bytesPerSecond: expected more than 0, got ${bytesPerSecond}`);
    gates.pace.bytesPerSecond = bytesPerSecond;
  }
  return gates;
}

function createGate(limit: number): AdjustableGate {
  const queue = new PQueue({ concurrency: limit });

  /** Occupies a slot of the queue until released. */
  function occupy(entered: (release: () => void) => void): () => Promise<void> {
    return () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      entered(resolve);
      return promise;
    };
  }

  return {
    get limit() {
      return queue.concurrency;
    },
    set limit(value) {
      queue.concurrency = value;
    },
    get taken() {
      return queue.pending;
    },
    async enter({ signal } = {}) {
      signal?.throwIfAborted();
      const waiting = new AbortController();
      const onAbort = () => waiting.abort(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      const { promise, resolve, reject } = Promise.withResolvers<() => void>();
      queue.add(occupy(resolve), { signal: waiting.signal }).catch(reject);
      try {
        return await promise;
      } finally {
        signal?.removeEventListener('abort', onAbort); // from here on the slot is the caller's, whatever the signal does
      }
    },
    tryEnter() {
      if (queue.pending + queue.size >= queue.concurrency) return undefined;
      let release: (() => void) | undefined;
      queue
        .add(
          occupy((free) => {
            release = free;
          }),
        )
        .catch(() => {}); // the work is ours and cannot fail
      return release;
    },
  };
}
