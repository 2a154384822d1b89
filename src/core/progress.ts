/** Which of the library's long operations speaks. */
export type RunKind = 'backup' | 'restore' | 'verify' | 'prune' | 'copy';

/**
 * What a long operation tells while it works: told apart by `kind`, in absolute numbers, called synchronously, so a
 * slow listener slows the work. New kinds may be added: ignore those you do not know.
 */
export type ProgressEvent =
  | {
      /** The next part of the work begins. */
      readonly kind: 'stage';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** Its name, for example `transfer`; of a verification or a copy the point's name. */
      readonly stage: string;
      /** The VM that the work is about, where it is about one. */
      readonly vmUuid?: string | undefined;
    }
  | {
      /** A disk begins to move. */
      readonly kind: 'disk-started';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** The source disk's uuid. */
      readonly diskId: string;
      /** The disk's name, for people. */
      readonly label: string;
      /** How it moves: `full`, `delta`, `image`; of a restore `vhd`, `raw`, `image`, `delta`. */
      readonly mode: string;
      /** Virtual size, in bytes. */
      readonly size: number;
      /** Bytes that are expected to move; `undefined` where nobody can know yet. */
      readonly totalBytes?: number | undefined;
    }
  | {
      /** Some of a disk, or of a file, has moved. */
      readonly kind: 'bytes-moved';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** The source disk's uuid; of a verification or a copy the file's name. */
      readonly diskId: string;
      /** Since the disk or file began. */
      readonly movedBytes: number;
      /** Bytes that are expected to move; `undefined` where nobody can know yet. */
      readonly totalBytes?: number | undefined;
    }
  | {
      /** A disk has moved. */
      readonly kind: 'disk-finished';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** The source disk's uuid. */
      readonly diskId: string;
      /** Of this disk, in all. */
      readonly movedBytes: number;
    }
  | {
      /** The run goes another way than planned. */
      readonly kind: 'fell-back';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** What it is about: a disk's uuid, or `vm`. */
      readonly subject: string;
      /** What was planned. */
      readonly from: string;
      /** What is done instead. */
      readonly to: string;
      /** Why, in words. */
      readonly reason: string;
    }
  | {
      /** A person should know of it; the run goes on. */
      readonly kind: 'warning';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** Stable; each is explained in `docs/errors.md`. */
      readonly code: string;
      /** One sentence for people. */
      readonly message: string;
    }
  | {
      /** Something is tried again: the host is connected to anew over NBD, to go on reading a disk where it was. */
      readonly kind: 'retrying';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** What it is about: a disk's uuid. */
      readonly subject: string;
      /** Which try has failed, from 1: a connection that broke is the first. */
      readonly attempt: number;
      /** The wait until the next, in milliseconds. */
      readonly waitMs: number;
      /** Why it failed. */
      readonly reason: string;
    }
  | {
      /** Another one writes the points of the VM, and is waited for. */
      readonly kind: 'waiting';
      /** Which operation speaks. */
      readonly run: RunKind;
      /** Whose points they are. */
      readonly vmUuid: string;
      /** How long it is waited for at most, from the start of the wait, in milliseconds. */
      readonly waitMs: number;
      /** Who it is, and what for. */
      readonly reason: string;
    };

/**
 * Receives {@link ProgressEvent}s. What it throws ends the run; once a backup's point exists it is only a warning in the
 * report, `LISTENER_FAILED`.
 */
export type ProgressListener = (event: ProgressEvent) => void;

/** What every long operation accepts beside its own options. */
export interface ProgressOptions {
  /** Called with each event of the work. @defaultValue nobody is told */
  readonly onProgress?: ProgressListener | undefined;
}
