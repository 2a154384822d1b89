/** Which of the library's long operations speaks. */
export type RunKind = 'backup' | 'restore' | 'verify' | 'prune' | 'copy';

/**
 * What a long operation tells while it works: told apart by `kind`, in absolute numbers, called synchronously, so a
 * slow listener slows the work. New kinds may be added: ignore those you do not know.
 */
export type ProgressEvent =
  | { readonly kind: 'stage'; readonly run: RunKind; readonly stage: string; readonly vmUuid?: string | undefined }
  | {
      readonly kind: 'disk-started';
      readonly run: RunKind;
      /** The source disk's uuid. */
      readonly diskId: string;
      readonly label: string;
      readonly mode: string;
      /** Virtual size, in bytes. */
      readonly size: number;
      /** Bytes that are expected to move; `undefined` where nobody can know yet. */
      readonly totalBytes?: number | undefined;
    }
  | {
      readonly kind: 'bytes-moved';
      readonly run: RunKind;
      readonly diskId: string;
      readonly movedBytes: number;
      readonly totalBytes?: number | undefined;
    }
  | { readonly kind: 'disk-finished'; readonly run: RunKind; readonly diskId: string; readonly movedBytes: number }
  | {
      readonly kind: 'fell-back';
      readonly run: RunKind;
      readonly subject: string;
      readonly from: string;
      readonly to: string;
      readonly reason: string;
    }
  | { readonly kind: 'warning'; readonly run: RunKind; readonly code: string; readonly message: string }
  | {
      readonly kind: 'retrying';
      readonly run: RunKind;
      readonly subject: string;
      readonly attempt: number;
      readonly waitMs: number;
      readonly reason: string;
    };

/**
 * Receives {@link ProgressEvent}s. What it throws ends the run; once a backup's point exists it is only a warning in the
 * report, `LISTENER_FAILED`.
 */
export type ProgressListener = (event: ProgressEvent) => void;

/** What every long operation accepts beside its own options. */
export interface ProgressOptions {
  readonly onProgress?: ProgressListener | undefined;
}
