import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TestCertificate {
  /** PEM. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
  readonly fingerprint256: string;
}

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

function inScratch<T>(work: (path: (name: string) => string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'xbs-cert-'));
  try {
    return work((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });

function load(cert: string, key: string): TestCertificate {
  const pem = readFileSync(cert, 'utf8');
  return { cert: pem, key: readFileSync(key, 'utf8'), fingerprint256: new X509Certificate(pem).fingerprint256 };
}

/** Self-signed, as a fresh host's is; for the name `host.test` unless told. */
export function selfSigned(name = 'host.test', days = 2): TestCertificate {
  return inScratch((path) => {
    openssl(
      'req',
      '-x509',
      ...EC,
      '-keyout',
      path('key'),
      '-out',
      path('cert'),
      '-days',
      String(days),
      '-subj',
      `/CN=${name}`,
    );
    return load(path('cert'), path('key'));
  });
}

/** An authority, and a certificate for 127.0.0.1 that it signed. */
export function signedByAuthority(): { readonly ca: string; readonly leaf: TestCertificate } {
  return inScratch((path) => {
    openssl('req', '-x509', ...EC, '-keyout', path('ca.key'), '-out', path('ca'), '-days', '2', '-subj', '/CN=ca.test');
    openssl('req', ...EC, '-keyout', path('key'), '-out', path('csr'), '-subj', '/CN=host.test');
    writeFileSync(path('ext'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
    openssl(
      ...['x509', '-req', '-in', path('csr'), '-CA', path('ca'), '-CAkey', path('ca.key'), '-CAcreateserial'],
      ...['-days', '2', '-out', path('cert'), '-extfile', path('ext')],
    );
    return { ca: readFileSync(path('ca'), 'utf8'), leaf: load(path('cert'), path('key')) };
  });
}
