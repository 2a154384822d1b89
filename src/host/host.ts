import type { CallOptions } from '../core/index.ts';
import type { Disk, SizedStream } from '../disk/index.ts';
import type {
  NetworkRecord,
  PifRecord,
  RecordByClass,
  RecordClass,
  SrRecord,
  VbdRecord,
  VdiRecord,
  VmRecord,
} from './records.ts';

/** An object of the host: its uuid, or a reference of the running session. */
export type ObjectId = string;

/** What the pool says about itself. */
export interface PoolFacts {
  /** It outlives the session, and names the pool in plans and restore points. */
  readonly poolUuid: string;
  /** Empty where nobody has named the pool. */
  readonly poolName: string;
  /** `XCP-ng`, `XenServer`, `Citrix Hypervisor` … as the coordinator spells it. */
  readonly productBrand: string;
  /** Of the coordinator, for example `8.3.0`. */
  readonly productVersion: string;
  /** `2.21`: the surest test for what a host can do. */
  readonly apiVersion: string;
  /** The coordinator's xapi build, where it tells. */
  readonly xapiVersion?: string | undefined;
  /** Does the licence allow changed block tracking? A host that does not say is taken to forbid it. */
  readonly cbtLicensed: boolean;
  /** Why changed block tracking cannot be had: the release is older than XenServer 7.3, or the licence lacks it. */
  readonly cbtMissing?: 'version' | 'licence' | undefined;
}

/** A disk of a VM: how it is attached, what it is, where it lies. */
export interface VmDisk {
  /** How it is attached. */
  readonly vbd: VbdRecord;
  /** What it is. */
  readonly vdi: VdiRecord;
  /** Where it lies. */
  readonly sr: SrRecord;
}

/** A network with what decides whether NBD can use it. */
export interface NetworkInfo {
  /** The host's own record. */
  readonly record: NetworkRecord;
  /** Of the network. */
  readonly uuid: string;
  /** As people call it; need not be unique. */
  readonly name: string;
  /** The bridge on the hosts, for example `xenbr0`. */
  readonly bridge: string;
  /** `nbd`, `insecure_nbd`; empty on hosts before 7.3. */
  readonly purposes: readonly string[];
  /** One entry for each attached interface with an address. */
  readonly addresses: readonly {
    /** The host that has it. */
    readonly hostUuid: string;
    /** IPv4, or IPv6 without the length of its prefix. */
    readonly address: string;
    /** The host's interface. */
    readonly pif: PifRecord;
  }[];
}

export interface AsyncCallOptions extends CallOptions {
  /** From 0 to 1, as the host reports it. */
  readonly onHostProgress?: ((progress: number) => void) | undefined;
}

/** Whose the memory of an export's chunks is. */
export interface ExportMemoryOptions {
  /**
   * Uses the memory of a chunk again once the next one is asked for: a third less work, for who is done with each chunk by
   * then. An import is not: what it has taken may still be on its way. Otherwise a chunk belongs to whoever received it.
   * @defaultValue `false`
   */
  readonly reuseMemory?: boolean | undefined;
}

export interface ExportDiskOptions extends CallOptions, ExportMemoryOptions {
  /** @defaultValue `'raw'` */
  readonly format?: 'raw' | 'vhd' | undefined;
  /** With `vhd`: only blocks that lie in storage nodes that one of the two has and the other has not. */
  readonly base?: ObjectId | undefined;
  /**
   * Asked when the connection has ended: how many bytes the whole export has, if its reader has found out (the block
   * table of a VHD tells). Without it a VHD export that was cut is known as such only when the host gives its verdict,
   * which can take minutes.
   */
  readonly wholeLength?: (() => number | undefined) | undefined;
}

/**
 * A running export. The chunks end only when the host's task has succeeded too: a failure of the task, a cut stream, an
 * error page inside the body reject the iteration. Leaving the loop early, or `close()`, ends the transfer and its task.
 */
export interface DiskExport extends AsyncDisposable {
  /** The bytes, to be iterated once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Ends the transfer and its task; does nothing where they have ended. */
  close(): Promise<void>;
}

export interface ImportDiskOptions extends CallOptions {
  /** @defaultValue `'raw'` */
  readonly format?: 'raw' | 'vhd' | undefined;
  /** Called with the bytes sent so far. */
  readonly onSent?: ((bytes: number) => void) | undefined;
}

export interface ExportVmOptions extends CallOptions, ExportMemoryOptions {
  /**
   * Compressed by the host, slowly. A host before 8.1 does not know zstd and sends the archive plain: look at the bytes.
   * @defaultValue `'none'`
   */
  readonly compression?: 'none' | 'gzip' | 'zstd' | undefined;
  /**
   * Asked when the connection has ended: how many bytes the whole archive has, if its reader has found out. Without it an
   * archive that was cut is known as such only when the host gives its verdict.
   */
  readonly wholeLength?: (() => number | undefined) | undefined;
}

export interface ImportVmOptions extends CallOptions {
  /** The storage for all disks. @defaultValue the pool's default storage */
  readonly sr?: ObjectId | undefined;
  /**
   * Keep uuid and MACs. A halted VM of that uuid and an older version is replaced, its disks orphaned: only for a uuid
   * that is proven to be absent.
   * @defaultValue `false`
   */
  readonly restore?: boolean | undefined;
  /** Go on where something is missing or wrong, checksums too. @defaultValue `false` */
  readonly force?: boolean | undefined;
  /** Called with the bytes sent so far. */
  readonly onSent?: ((bytes: number) => void) | undefined;
}

export interface ImportMetadataOptions extends CallOptions {
  /** Keep uuids and MACs. @defaultValue `false` */
  readonly restore?: boolean | undefined;
  /** @defaultValue `false` */
  readonly force?: boolean | undefined;
  /** Check only, create nothing. @defaultValue `false` */
  readonly dryRun?: boolean | undefined;
}

export interface OpenNbdOptions extends CallOptions {
  /** Use only addresses on this network (uuid or name). @defaultValue any address the host offers */
  readonly network?: ObjectId | undefined;
  /** @defaultValue 2 */
  readonly connections?: number | undefined;
  /** Allow NBD without TLS where the pool offers only that. @defaultValue `false` */
  readonly insecure?: boolean | undefined;
  /**
   * Called when a connection was lost or could not be had, and another is tried: with why, which try has failed (from
   * 1), and the wait until the next, in milliseconds. What it throws ends the read.
   */
  readonly onRetry?: ((cause: unknown, attempt: number, waitMs: number) => void) | undefined;
}

/** One NBD server of a pool, to be tried. */
export interface NbdTarget {
  /** The host that has the address. */
  readonly host: ObjectId;
  /** One of the host's, as the pool names it. */
  readonly address: string;
  /** A disk on storage that this host sees: it tells port and certificate. @defaultValue NBD's own port, 10809 */
  readonly vdi?: ObjectId | undefined;
  /** Open the disk, which no running VM may write to, and read its first block. @defaultValue `false` */
  readonly read?: boolean | undefined;
}

/** What a trial has proven: TLS with the host's own certificate, and a read where `bytesRead` is not 0. */
export interface NbdTrial {
  /** Where the server listens, as the pool says. */
  readonly port: number;
  /** 0 where nothing was read. */
  readonly bytesRead: number;
}

/** One pool, through one session. Everything above works through this port; {@link connectHost} makes it. */
export interface Host extends AsyncDisposable {
  /** Where it is, without credentials, for messages. */
  readonly label: string;
  /** What the pool said about itself when we connected. */
  readonly facts: PoolFacts;

  /**
   * Calls the host's API; the session goes in front of `args` by itself. A refusal rejects with `HostError`. For calls
   * that work on VMs, VDIs and VBDs use {@link callAsync}: the host may hold a plain call for hours.
   *
   * Only getters are repeated when a connection breaks. After `HOST_UNREACHABLE` or `TIMEOUT` any other call may have been
   * carried out: look before you repeat one that makes something.
   *
   * @throws HostError `HOST_CALL_FAILED` with the host's own code; BackupError `HOST_UNREACHABLE`, `TIMEOUT`,
   * `HOST_ANSWER_INVALID`.
   */
  call<T = unknown>(method: string, ...args: unknown[]): Promise<T>;
  /**
   * Runs `Async.<method>`, waits for its task, destroys the task; an abort cancels it on the host.
   *
   * @throws HostError `HOST_CALL_FAILED`, `TASK_FAILED`, with the host's own code; BackupError `TASK_VANISHED` where the host
   * forgot the task, `HOST_UNREACHABLE`.
   */
  callAsync<T = unknown>(method: string, args: readonly unknown[], options?: AsyncCallOptions): Promise<T>;

  /** One record by uuid or reference; `HostError` (`UUID_INVALID`, `HANDLE_INVALID`) where it is gone. */
  getRecord<C extends RecordClass>(type: C, id: ObjectId): Promise<RecordByClass[C]>;
  /** The same, but `undefined` where it is gone. */
  findRecord<C extends RecordClass>(type: C, id: ObjectId): Promise<RecordByClass[C] | undefined>;
  /** All records of a class. */
  listRecords<C extends RecordClass>(type: C): Promise<RecordByClass[C][]>;

  /** VMs proper: no templates, snapshots, control domains. */
  listVms(): Promise<VmRecord[]>;
  /** By uuid, or by a name that only one VM has; else `NOT_FOUND`, with the candidates. */
  getVm(uuidOrName: string): Promise<VmRecord>;
  /** Its disks in device order: no CDs, no floppies. */
  listDisks(vm: ObjectId): Promise<VmDisk[]>;
  /** All networks of the pool, with the addresses that its hosts have on them. */
  listNetworks(): Promise<NetworkInfo[]>;
  /**
   * Gives the network the purpose `nbd`; does nothing where it has it.
   *
   * @throws BackupError `NOT_FOUND`; `HOST_NOT_SUPPORTED` before XenServer 7.3; `NBD_UNAVAILABLE` where another network of the
   * pool offers NBD without TLS.
   */
  enableNbd(network: ObjectId): Promise<void>;
  /** Takes the purpose `nbd` from the network; does nothing where it has it not. */
  disableNbd(network: ObjectId): Promise<void>;

  /**
   * The VM as one archive (XVA) with the data of all disks. It must be halted or suspended, or a snapshot. That the chunks
   * end proves that the host has sent all, not that all has arrived: `checkingXva` does.
   *
   * @throws as {@link exportDisk} does.
   */
  exportVm(vm: ObjectId, options?: ExportVmOptions): Promise<DiskExport>;
  /**
   * Makes the VM of an archive, with its disks. The archive of a snapshot comes back as a template with the snapshot's name:
   * see `rewriteXvaMetadata`. On a failure the host removes what it made.
   *
   * @returns references of the VMs made.
   * @throws as {@link importDisk} does.
   */
  importVm(archive: SizedStream, options?: ImportVmOptions): Promise<string[]>;
  /**
   * A disk that no running VM writes to (a snapshot), as raw bytes or as a VHD.
   *
   * @throws HostError `TRANSFER_FAILED` with the host's own code; BackupError `TRANSFER_CUT` where the connection ended
   * early, `TIMEOUT`, `HOST_UNREACHABLE`; all of them from the chunks, too.
   */
  exportDisk(vdi: ObjectId, options?: ExportDiskOptions): Promise<DiskExport>;
  /**
   * Sends a stream of exactly known length into an existing VDI and waits for the host's verdict.
   *
   * @throws HostError `TRANSFER_FAILED` with the host's own code; BackupError `TRANSFER_CUT`, `TIMEOUT`, `HOST_UNREACHABLE`.
   */
  importDisk(vdi: ObjectId, stream: SizedStream, options?: ImportDiskOptions): Promise<void>;
  /** The VM's metadata archive: a tar with `ova.xml`. */
  exportMetadata(vm: ObjectId, options?: CallOptions): Promise<Uint8Array>;
  /** @returns references of the VMs made. */
  importMetadata(archive: Uint8Array, options?: ImportMetadataOptions): Promise<string[]>;
  /**
   * Opens a disk that no running VM writes to (a snapshot) for reading over NBD.
   *
   * @throws BackupError `NBD_UNAVAILABLE` with the reason; NbdError where connecting fails.
   */
  openNbd(vdi: ObjectId, options?: OpenNbdOptions): Promise<Disk>;
  /**
   * Tries whether one NBD server of the pool serves us over TLS: without a retry, so that a person sees what is.
   * Rejects with `NBD_UNAVAILABLE`, or an `NbdError` that names the stage.
   */
  tryNbd(target: NbdTarget, options?: CallOptions): Promise<NbdTrial>;
  /** As `VDI.list_changed_blocks`, with the size of the newer disk: the port that `queryChangedBlocks` asks for. */
  listChangedBlocks(
    fromVdi: ObjectId,
    toVdi: ObjectId,
    options?: CallOptions,
  ): Promise<{
    /** Base64. */
    readonly bitmap: string;
    /** In bytes. */
    readonly diskSize: number;
  }>;

  /** Logs out and closes what this connection opened. */
  close(): Promise<void>;
}
