export { formatBytes, formatDuration } from './format.ts';
export {
  type ProgressDisplay,
  type ProgressStream,
  type ShowProgressOptions,
  showProgress,
} from './show-progress.ts';
export { type TableOptions, table } from './table.ts';
