import type { CallOptions, ProgressOptions } from '../core/index.ts';
import type { PointId } from './manifest.ts';

/** Progress comes as `stage` with the point's name, and `bytes-moved` with the file's name as `diskId`. */
export interface VerifyOptions extends CallOptions, ProgressOptions {
  /**
   * `'structure'` reads manifests and the structures of files: fast. `'content'` also reads every byte and compares
   * SHA-256.
   * @defaultValue `'structure'`
   */
  readonly level?: 'structure' | 'content' | undefined;
}

/** Something that is not as it was written. */
export interface Damage {
  /** Full name in the store. */
  readonly file: string;
  /** The code of the error that reading it gives. */
  readonly code: string;
  /** One sentence for people. */
  readonly message: string;
}

/** What was found about one point. */
export interface PointReport extends PointId {
  /** No damage in it, nor in any point it builds on. */
  readonly restorable: boolean;
  /** Damage in the point's own files. */
  readonly damage: readonly Damage[];
  /** Points it builds on that are damaged or missing. */
  readonly brokenBases: readonly string[];
  /** Points that build on it, directly or through others: what its damage reaches. */
  readonly dependents: readonly string[];
}

/** The outcome of `verify`: plain data. */
export interface VerifyReport {
  /** How deep was looked. */
  readonly level: 'structure' | 'content';
  /** Is there no damage at all? */
  readonly ok: boolean;
  /** By time. */
  readonly points: readonly PointReport[];
  /**
   * Files of no point: left by a writer that was killed, or by one that is writing now. Not damage. Empty unless
   * everything was verified.
   */
  readonly orphans: readonly string[];
  /** Bytes whose SHA-256 was compared. */
  readonly bytesRead: number;
}
