import { FormatError, type FormatErrorCode } from '../core/index.ts';

/** Something about an archive that is wrong: readers refuse it. */
export interface XvaFinding {
  /** Stable, see `docs/errors.md`. */
  readonly code: FormatErrorCode;
  /** The name of the entry it is about; empty where there is none yet. */
  readonly entry: string;
  /** Where it is, in bytes from the start of the uncompressed archive. */
  readonly offset: number;
  /** What would have been right. */
  readonly expected: string;
  /** What was found. */
  readonly actual: string;
  /** All of it as a sentence. */
  readonly message: string;
}

/** The error that a finding amounts to; its `facts` name the entry. */
export function errorOf(finding: XvaFinding, file?: string, cause?: unknown): FormatError {
  const { code, entry, offset, expected, actual } = finding;
  return new FormatError(
    code,
    { what: entry === '' ? 'archive' : `entry ${entry}`, offset, expected, actual, file },
    { facts: { entry }, retryable: code === 'XVA_TRUNCATED', ...(cause === undefined ? {} : { cause }) },
  );
}

/** A finding, its sentence made of its parts. */
export function findingOf(
  code: FormatErrorCode,
  entry: string,
  offset: number,
  expected: unknown,
  actual: unknown,
): XvaFinding {
  const message = `${entry === '' ? 'archive' : `entry ${entry}`} at offset ${offset}: expected ${String(expected)}, got ${String(actual)}`;
  return { code, entry, offset, expected: String(expected), actual: String(actual), message };
}
