export type { Finding, FindingId, Fix, Severity, Subject } from './finding.ts';
export { type PreflightOptions, preflight } from './preflight.ts';
