export { abortable, anySignal, type CallOptions } from './abort.ts';
export { type Clock, type SleepOptions, systemClock } from './clock.ts';
export {
  BackupError,
  type BackupErrorOptions,
  type ErrorCode,
  type ErrorFacts,
  FormatError,
  type FormatErrorCode,
  HostError,
  type Mismatch,
} from './errors.ts';
export { createLog, type Logger } from './log.ts';
export type { ProgressEvent, ProgressListener, ProgressOptions, RunKind } from './progress.ts';
export { redact } from './redact.ts';
export {
  type Decision,
  type DiskReport,
  type HookReport,
  type ReceiptItem,
  RunError,
  type RunReport,
  type SlowSide,
  type StageReport,
  type TransferReport,
  type TransferTime,
  type Warning,
} from './report.ts';
export { isRetryable, type RetryOptions, retry } from './retry.ts';
export { runAll } from './run-all.ts';
export { newRunId, RunRecorder, type RunRecorderOptions } from './run-recorder.ts';
export { shortText, shownAs } from './shown-as.ts';
export { slowSideOf, type Work } from './slow-side.ts';
export { type Stopwatch, systemStopwatch } from './stopwatch.ts';
export { TransferMeter } from './transfer-meter.ts';
