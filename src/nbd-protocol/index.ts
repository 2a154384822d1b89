/**
 * The NBD protocol: a client that reads and writes exports, and a server that serves any `Disk`.
 *
 * @module xen-backup-sdk/nbd
 */

export { connectNbd, type NbdDisk, type NbdWriteOptions } from './client.ts';
export type { NbdOptions, NbdReconnectOptions, NbdTimeouts, NbdTlsOptions } from './client-options.ts';
export type { NbdContextExtent } from './command.ts';
export { listNbdExports, type NbdExportInfo } from './connect.ts';
export { NbdError, type NbdErrorOptions, type NbdPeer, type NbdStage } from './errors.ts';
export { type NbdServer, serveNbd } from './server.ts';
export type {
  NbdConnectionInfo,
  NbdExportResolver,
  NbdExports,
  NbdServerHooks,
  NbdServerOptions,
  NbdServerStep,
  NbdServerTlsOptions,
  NbdServerVerdict,
} from './server-options.ts';
export { formatNbdUri, type NbdUri, parseNbdUri } from './uri.ts';
