import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { certificateProblems } from '../../src/preflight/certificate.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const DAY_MS = 24 * 3600_000;

/** A self-signed certificate of one hundred days, as openssl makes it. */
async function certificate(key: string, digest: string): Promise<string> {
  await using dir = await makeTempDir();
  const [keyFile, file] = [dir.file('key'), dir.file('cert')];
  const fresh = ['-newkey', ...key.split(' '), '-nodes', '-keyout', keyFile, '-subj', '/CN=host', '-days', '100'];
  await promisify(execFile)('openssl', ['req', '-x509', ...fresh, `-${digest}`, '-out', file]);
  return await readFile(file, 'utf8');
}

const problemsOf = (pem: string, days: number) =>
  certificateProblems(pem, Date.now() + days * DAY_MS).problems.map(({ problem }) => problem);

test.runIf(hasTool('openssl'))('dates, to the day', async () => {
  const pem = await certificate('rsa:2048', 'sha256');
  expect(problemsOf(pem, 0)).toEqual([]);
  expect(problemsOf(pem, -2)).toEqual(['not-yet-valid']);
  expect(problemsOf(pem, 69)).toEqual([]);
  expect(problemsOf(pem, 71)).toEqual(['expires-soon']);
  expect(problemsOf(pem, 101)).toEqual(['expired']);
});

test.runIf(hasTool('openssl'))('keys and signatures', async () => {
  expect(problemsOf(await certificate('rsa:1024', 'sha256'), 0)).toEqual(['weak-key']);
  expect(problemsOf(await certificate('rsa:2048', 'sha1'), 0)).toEqual(['weak-signature']);
  const curve = await certificate('ec -pkeyopt ec_paramgen_curve:P-256', 'sha256');
  expect(problemsOf(curve, 0)).toEqual([]);
  expect(certificateProblems(curve, Date.now()).facts).toMatchObject({ keyType: 'ec', keyBits: undefined });
});
