import { X509Certificate } from 'node:crypto';

/** What a certificate says, as far as it matters here. */
export interface CertificateFacts {
  readonly subject: string;
  /** ISO 8601, UTC. */
  readonly validFrom: string;
  /** ISO 8601, UTC. */
  readonly validTo: string;
  readonly fingerprint256: string;
  readonly keyType: string;
  /** Of an RSA key. */
  readonly keyBits?: number | undefined;
}

export interface CertificateProblem {
  readonly problem: 'not-yet-valid' | 'expired' | 'expires-soon' | 'weak-key' | 'weak-signature';
  /** Goes on from "the certificate". */
  readonly words: string;
}

const DAY_MS = 24 * 3600_000;
const SOON_DAYS = 30;
const MIN_RSA_BITS = 2048;

/** The DER of sha1WithRSAEncryption, 1.2.840.113549.1.1.5 (RFC 8017, A.2.4): only new versions of Node name the algorithm. */
const SHA1_WITH_RSA = Buffer.from('06092a864886f70d010105', 'hex');

/** What will bring somebody who checks this certificate to a halt, now or soon. `now`: milliseconds since 1970. */
export function certificateProblems(
  pem: string,
  now: number,
): { readonly facts: CertificateFacts; readonly problems: readonly CertificateProblem[] } {
  const certificate = new X509Certificate(pem);
  const { publicKey, fingerprint256, subject, raw } = certificate;
  const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  const keyType = publicKey.asymmetricKeyType ?? 'unknown';
  const keyBits = publicKey.asymmetricKeyDetails?.modulusLength;
  const problems: CertificateProblem[] = [];
  const daysLeft = Math.floor((to - now) / DAY_MS);
  if (now < from)
    problems.push({ problem: 'not-yet-valid', words: `is valid only from ${isoOf(from)}: look at the clocks` });
  if (now >= to) problems.push({ problem: 'expired', words: `expired on ${isoOf(to)}` });
  else if (daysLeft < SOON_DAYS) problems.push({ problem: 'expires-soon', words: `expires in ${daysLeft} days` });
  if (keyType === 'rsa' && keyBits !== undefined && keyBits < MIN_RSA_BITS) {
    problems.push({ problem: 'weak-key', words: `has an RSA key of ${keyBits} bits, which new software refuses` });
  }
  if (raw.includes(SHA1_WITH_RSA)) problems.push({ problem: 'weak-signature', words: 'is signed with SHA-1' });
  const facts = { subject, validFrom: isoOf(from), validTo: isoOf(to), fingerprint256, keyType, keyBits };
  return { facts, problems };
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
