import { FormatError, type FormatErrorCode } from '../core/index.ts';

/** Something about a VHD that is wrong (`error`) or unusual (`warning`: every reader we know copes). */
export interface VhdFinding {
  /** Readers refuse an `error`, and go on with a `warning`. */
  readonly severity: 'error' | 'warning';
  /** Stable, see `docs/errors.md`. */
  readonly code: FormatErrorCode;
  /** The structure and field. */
  readonly field: string;
  /** Where it is, in bytes from the start of the file or stream. */
  readonly offset: number;
  /** What was found. */
  readonly value: unknown;
  /** What would have been right. */
  readonly limit: unknown;
  /** All of it as a sentence. */
  readonly message: string;
}

type Parts = [code: FormatErrorCode, field: string, offset: number, limit: unknown, value: unknown];

/** A finding for which readers refuse. */
export function error(...parts: Parts): VhdFinding {
  return finding('error', ...parts);
}

/** A finding with which readers go on. */
export function warning(...parts: Parts): VhdFinding {
  return finding('warning', ...parts);
}

function finding(severity: VhdFinding['severity'], ...[code, field, offset, limit, value]: Parts): VhdFinding {
  const message = `${field} at offset ${offset}: expected ${String(limit)}, got ${String(value)}`;
  return { severity, code, field, offset, value, limit, message };
}

/** The finding that a decoder's refusal amounts to. */
export function findingOf({ code, at }: FormatError): VhdFinding {
  return error(code as FormatErrorCode, at.what, at.offset, at.expected, at.actual);
}

/** The error that a finding amounts to. */
export function errorOf({ code, field, offset, limit, value }: VhdFinding, file?: string): FormatError {
  return new FormatError(code, { what: field, offset, expected: limit, actual: value, file });
}

/** Throws the first of the findings that is an error. */
export function throwFirstError(findings: readonly VhdFinding[], file?: string): void {
  const first = findings.find(({ severity }) => severity === 'error');
  if (first !== undefined) throw errorOf(first, file);
}
