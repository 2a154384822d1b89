import type { CallOptions, Clock } from '../core/index.ts';
import type { Host, HostRecord, NetworkInfo, RecordByClass, RecordClass, VmDisk, VmRecord } from '../host/index.ts';
import type { Finding, Severity } from './finding.ts';

/** A VM with its disks. */
export interface VmWithDisks {
  readonly vm: VmRecord;
  readonly disks: readonly VmDisk[];
}

/** What the checks share: each thing is asked of the host once, when it is first needed. */
export interface Context extends CallOptions {
  readonly host: Host;
  readonly clock: Clock;
  /** Uuid or name, as the caller gave it. */
  readonly network: string | undefined;
  /** How bad it is when increments cannot be had: an error, unless only fulls are wanted. */
  readonly ifNoIncrements: Severity;
  readonly vms: readonly VmWithDisks[];
  /** The hosts to look at. */
  readonly hosts: readonly HostRecord[];
  list<C extends RecordClass>(type: C): Promise<readonly RecordByClass[C][]>;
  networks(): Promise<readonly NetworkInfo[]>;
}

/** One thing to look at. What it has found before it fails counts. */
export type Check = (context: Context) => AsyncIterable<Finding> | Iterable<Finding>;

/** Asks for each class of records once. */
export function askedOnce(host: Host): Pick<Context, 'list' | 'networks'> {
  const lists = new Map<RecordClass, Promise<readonly unknown[]>>();
  let networks: Promise<readonly NetworkInfo[]> | undefined;
  return {
    list<C extends RecordClass>(type: C) {
      const asked = lists.get(type) ?? host.listRecords(type);
      lists.set(type, asked);
      return asked as Promise<readonly RecordByClass[C][]>;
    },
    networks() {
      networks ??= host.listNetworks();
      return networks;
    },
  };
}
