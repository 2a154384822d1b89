const OPAQUE_REF = /OpaqueRef:(?!NULL\b)[0-9A-Za-z-]{8,}/g;
const SESSION_PARAMETER = /(session_id(?:=|%3D|"\s*:\s*"))[^\s&"'?]+/gi;
const URL_PASSWORD = /([a-z][a-z0-9+.-]*:\/\/[^\s/:@]*):[^\s/@]*@/gi;
const SECRET_MEMBER = /("(?:password|pwd|passwd|secret|pool_secret)"\s*:\s*")(?:[^"\\]|\\.)*/gi;
const AUTHORIZATION = /(authorization\s*[:=]\s*["']?(?:basic|bearer)\s+)[^\s"']+/gi;

/**
 * Takes session references, passwords and authorisation headers out of a text that leaves the process: logs, error
 * messages, transcripts. A session reference looks like any other reference of the host, so all of them go.
 */
export function redact(text: string): string {
  return text
    .replace(SESSION_PARAMETER, '$1<redacted>')
    .replace(OPAQUE_REF, 'OpaqueRef:<redacted>')
    .replace(URL_PASSWORD, '$1:<redacted>@')
    .replace(SECRET_MEMBER, '$1<redacted>')
    .replace(AUTHORIZATION, '$1<redacted>');
}
