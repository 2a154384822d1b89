/**
 * What will go wrong with the backups of a pool, told beforehand.
 *
 * @module xen-backup-sdk/preflight
 */

export type { Finding, FindingId, Fix, Severity, Subject } from './finding.ts';
export { type PreflightOptions, preflight } from './preflight.ts';
