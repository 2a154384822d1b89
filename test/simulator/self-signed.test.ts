import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeSelfSigned } from '../../src/simulator/self-signed.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const DAY = 24 * 3600_000;
const NOW = Date.UTC(2026, 0, 15);

const make = (notAfter = NOW + 3650 * DAY) =>
  makeSelfSigned({
    commonName: 'simulated-host',
    dnsNames: ['simulated-host', 'simulated-host.example'],
    addresses: ['127.0.0.1', '192.0.2.200'],
    notBefore: NOW - DAY,
    notAfter,
  });

test('Node reads back what the certificate says', async () => {
  const { certificate } = await make();
  const read = new X509Certificate(certificate);
  expect(read.subject).toBe('CN=simulated-host');
  expect(read.issuer).toBe(read.subject);
  expect(read.subjectAltName).toBe(
    'DNS:simulated-host, DNS:simulated-host.example, IP Address:127.0.0.1, IP Address:192.0.2.200',
  );
  expect(read.validFromDate.getTime()).toBe(NOW - DAY);
  expect(read.ca).toBe(false);
  expect(read.verify(read.publicKey)).toBe(true);
});

test('a certificate that outlives 2049 writes its end in four digits of year', async () => {
  const end = Date.UTC(2055, 5, 1);
  expect(new X509Certificate((await make(end)).certificate).validToDate.getTime()).toBe(end);
});

test('only IPv4 addresses are known', async () => {
  const options = { commonName: 'x', dnsNames: [], addresses: ['::1'], notBefore: NOW, notAfter: NOW + DAY };
  await expect(makeSelfSigned(options)).rejects.toThrow(TypeError);
});

test.runIf(hasTool('openssl'))('openssl finds a version 3 RSA-2048 certificate without constraints', async () => {
  await using directory = await makeTempDir();
  const { certificate, key } = await make(Date.now() + 10 * DAY);
  const [certFile, keyFile] = [join(directory.path, 'cert.pem'), join(directory.path, 'key.pem')];
  await writeFile(certFile, certificate);
  await writeFile(keyFile, key);
  const openssl = (...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    return stdout;
  };
  const shown = openssl('x509', '-in', certFile, '-noout', '-text');
  expect(shown).toContain('Version: 3 (0x2)');
  expect(shown).toContain('Signature Algorithm: sha256WithRSAEncryption');
  expect(shown).toContain('Public-Key: (2048 bit)');
  expect(shown).toMatch(/X509v3 Subject Alternative Name:\s+DNS:simulated-host, DNS:simulated-host.example, IP/);
  expect(shown).not.toContain('Basic Constraints');
  expect(shown).not.toContain('Key Usage');
  expect(openssl('verify', '-CAfile', certFile, certFile)).toContain('OK');
  const modulus = openssl('x509', '-in', certFile, '-noout', '-modulus');
  expect(openssl('rsa', '-in', keyFile, '-noout', '-modulus')).toBe(modulus);
});
