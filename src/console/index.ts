/**
 * For people at a terminal: progress, tables.
 *
 * @module xen-backup-sdk/console
 */

export { formatBytes, formatDuration } from './format.ts';
export {
  type ProgressDisplay,
  type ProgressStream,
  type ShowProgressOptions,
  showProgress,
} from './show-progress.ts';
export { type Repl, type ReplOptions, startRepl } from './start-repl.ts';
export { type TableOptions, table } from './table.ts';
