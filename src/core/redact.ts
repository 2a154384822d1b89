const SECRET_NAME = '(?:password|passwd|passphrase|pwd|secret|session_?id|private_?key|\\bpsk)';

/** Each with what stands for the secret. Every repetition is bounded or unambiguous: texts may be megabytes long. */
const RULES: readonly (readonly [RegExp, string])[] = [
  // PEM
  [/(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]*/g, '$1<redacted>'],
  // a call that logs in: the secret has a place, not a name
  [
    /((?:login|authenticate)_with_password\\*["']?\s*(?:,\s*\\*["']?params\\*["']?\s*:\s*\[|\())[^\n]*/g,
    '$1<redacted>',
  ],
  // a named member, quoted as in JSON (in JSON, too) or as Node prints objects
  [
    new RegExp(`(${SECRET_NAME}\\\\*["'\`]?\\s*[:=]\\s*)(\\\\{0,8}["'\`])(?:(?!\\2)(?:\\\\[^]|[^]))*`, 'gi'),
    '$1$2<redacted>',
  ],
  // a named parameter of a URL or a form
  [new RegExp(`(${SECRET_NAME}(?:=|%3D))[^\\s&"'\`?<>]+`, 'gi'), '$1<redacted>'],
  // the host's references: one of a session looks like any other
  [/(OpaqueRef(?::|%3A))(?!NULL\b)[0-9A-Za-z-]+/gi, '$1<redacted>'],
  // user:password@host; up to the last @, because people do not escape theirs
  [/\b([a-z][a-z0-9+.-]{0,30}:\/\/[^\s/:@"'`<>]{0,256}):[^\s"'`<>]{0,512}@/gi, '$1:<redacted>@'],
  [/(authorization\\*["']?\s*[:=,]\s*\\*["']?(?:basic|bearer|digest)\s+)[^\s"'`\\,]+/gi, '$1<redacted>'],
];

/**
 * Takes session references, passwords, private keys and authorisation headers out of a text that leaves the process:
 * logs, error messages, transcripts. A session reference looks like any other reference of the host, so all of them go.
 *
 * It knows secrets by the names and forms around them. A password alone in a sentence it cannot see: do not put it there.
 */
export function redact(text: string): string {
  let clean = text;
  for (const [secret, mark] of RULES) clean = clean.replace(secret, mark);
  return clean;
}
