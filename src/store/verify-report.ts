import type { CallOptions, Clock, ProgressOptions } from '../core/index.ts';
import type { PointId } from './manifest.ts';

/** Progress comes as `stage` with the point's name, and `bytes-moved` with the file's name as `diskId`. */
export interface VerifyOptions extends CallOptions, ProgressOptions {
  /**
   * `'structure'` reads manifests and the structures of files: fast. `'content'` also reads every byte and compares
   * SHA-256.
   * @defaultValue `'structure'`
   */
  readonly level?: 'structure' | 'content' | undefined;
  /**
   * Of level `content`: reads only points that were not found whole before, or longer ago than this, in milliseconds;
   * `Infinity`: only what is new. What is found whole is recorded beside the point, one after the other, so that a run that
   * was cut short goes on where it was.
   * @defaultValue reads everything, and records nothing
   */
  readonly recheckAfterMs?: number | undefined;
  /** @defaultValue the repository's clock */
  readonly clock?: Clock | undefined;
}

/** Something that is not as it was written. */
export interface Damage {
  /** Full name in the store. */
  readonly file: string;
  /** The code of the error that reading it gives. */
  readonly code: string;
  /** One sentence for people. */
  readonly message: string;
  /** Where in the file, in bytes, as far as that is known. */
  readonly offset?: number | undefined;
  /** What it touches of a disk as a guest sees it. */
  readonly disk?: DamagedPart | undefined;
}

/** A damaged part of a disk. */
export interface DamagedPart {
  /** The source disk's uuid. */
  readonly vdiUuid: string;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

/** What was found about one point. */
export interface PointReport extends PointId {
  /** No damage in it, nor in any point it builds on. */
  readonly restorable: boolean;
  /** Damage in the point's own files. */
  readonly damage: readonly Damage[];
  /** When its content was found whole, where that was not looked at again. ISO 8601, UTC. */
  readonly verifiedAt?: string | undefined;
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
