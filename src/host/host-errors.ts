import { BackupError, type ErrorCode, HostError, redact } from '../core/index.ts';
import { describe, RETRYABLE, SESSION_OVER } from './xapi-codes.ts';

/** Takes the running session's reference out of a text. */
export type Scrub = (text: string) => string;

const UNREACHABLE: ReadonlySet<string> = new Set([
  'EADDRNOTAVAIL',
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'EPROTO',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ETIMEDOUT',
]);

/** Is this the network's failure, not the host's answer? */
export function isNetworkFailure(error: unknown): boolean {
  const code = codeOf(error);
  return code !== undefined && (UNREACHABLE.has(code) || code.startsWith('ERR_SSL_') || code.startsWith('HPE_'));
}

/** The host's refusal, in our words. `params` stay as they are, but for the session's reference. */
export function refusal(
  hostCode: string,
  params: readonly string[],
  doing: string,
  scrub: Scrub,
  code?: ErrorCode,
): HostError {
  const xapiCode = scrub(hostCode);
  const clean = xapiCode === SESSION_OVER ? [] : params.map(scrub);
  const ours = xapiCode === 'SESSION_AUTHENTICATION_FAILED' ? 'HOST_AUTHENTICATION_FAILED' : code;
  return new HostError(xapiCode, clean, redact(describe(xapiCode, clean, doing)), {
    retryable: RETRYABLE.has(xapiCode),
    ...(ours === undefined ? {} : { code: ours }),
  });
}

/**
 * Turns whatever a client or a socket rejected with into an error of ours. Nothing that `xen-api` attached to its errors
 * survives: it records the arguments of calls there.
 */
export function toBackupError(error: unknown, doing: string, scrub: Scrub): BackupError {
  if (error instanceof BackupError) {
    Reflect.deleteProperty(error, 'call');
    return error;
  }
  const code = codeOf(error);
  const params = (error as { params?: unknown } | undefined)?.params;
  if (code !== undefined && Array.isArray(params)) return refusal(code, params.map(String), doing, scrub);
  const message = redact(scrub(error instanceof Error ? error.message : String(error)));
  if (isNetworkFailure(error)) {
    return new BackupError('HOST_UNREACHABLE', `${doing}: ${message}`, { retryable: true, facts: { errno: code } });
  }
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new BackupError('TIMEOUT', `${doing}: ${message}`, { retryable: true });
  }
  return new BackupError('HOST_CALL_FAILED', `${doing}: ${message}`);
}

function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}
