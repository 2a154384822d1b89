/**
 * One pool over its API: calls, tasks, records, exports, imports, NBD; limits for each host.
 *
 * @module xen-backup-sdk/host
 */

export { type ConnectHostOptions, connectHost } from './connect-host.ts';
export type { ExchangeListener, HostCall, HostExchange, HostRequest } from './exchange-log.ts';
export type {
  AsyncCallOptions,
  DiskExport,
  ExportDiskOptions,
  ExportMemoryOptions,
  ExportVmOptions,
  Host,
  ImportDiskOptions,
  ImportMetadataOptions,
  ImportVmOptions,
  NbdTarget,
  NbdTrial,
  NetworkInfo,
  ObjectId,
  OpenNbdOptions,
  PoolFacts,
  VmDisk,
} from './host.ts';
export type { HostLimits } from './limits.ts';
export { type ReadFingerprintOptions, readFingerprint } from './read-fingerprint.ts';
export * from './records.ts';
export { storesVhds } from './storage.ts';
export type { HostTimeouts } from './timeouts.ts';
export type { ResolveAddress, TlsTrust } from './trust.ts';
export type { XapiClient } from './xapi-client.ts';
export * as xapiCodes from './xapi-codes.ts';
