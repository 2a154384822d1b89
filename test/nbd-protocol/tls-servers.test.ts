import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectNbd, NbdError, type NbdOptions } from '../../src/nbd-protocol/index.ts';
import { type KeyPair, makePki, makeSelfSigned, type Pki } from '../support/certificates.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';
import { nbdkit, nbdServer, qemuNbd, type RealServer } from './real-servers.ts';

const MIB = 1024 * 1024;
let dir: TempDir;
let pki: Pki;
let host: KeyPair;
let expired: KeyPair;

beforeAll(async () => {
  dir = await makeTempDir();
  await mkdir(dir.file('pki'));
  pki = await makePki(dir.file('pki'));
  host = await selfSigned('host1.example', false);
  expired = await selfSigned('old.example', true);
}, 60_000);
afterAll(() => dir[Symbol.asyncDispose]());

/** A directory as nbdkit wants it, with a certificate like that of a XenServer host. */
async function selfSigned(name: string, isExpired: boolean): Promise<KeyPair> {
  const directory = dir.file(name);
  await mkdir(directory);
  const pair = await makeSelfSigned(directory, name, { expired: isExpired });
  for (const [file, content] of [
    ['ca-cert.pem', pair.cert],
    ['server-cert.pem', pair.cert],
    ['server-key.pem', pair.key],
  ] as const) {
    await writeFile(`${directory}/${file}`, content);
  }
  return pair;
}

const required = (directory: string) => ['--tls=require', `--tls-certificates=${directory}`];

async function outcome(server: RealServer, options: NbdOptions): Promise<number | string> {
  try {
    await using disk = await connectNbd(server.uri, options);
    await disk.readInto(new Uint8Array(Math.min(disk.size, 4096)), 0);
    return disk.size;
  } catch (error) {
    if (error instanceof NbdError) return error.code;
    throw error;
  }
}

describe.runIf(hasTool('nbdkit') && hasTool('openssl'))('nbdkit with TLS', () => {
  test('row 44: as XenServer, down to its silence', async () => {
    const exportName = '/1fb5?session_id=OpaqueRef:abcdefgh';
    const image = dir.file('raw.img');
    await writeFile(image, new Uint8Array(MIB).fill(9));
    const like = ['-r', '--mask-handshake=1', '--no-sr', '-t', '1', ...required(dir.file('host1.example'))];
    const filters = ['--filter=limit', '--filter=exportname', 'file', image, 'limit=16'];
    const names = [`exportname=${exportName}`, 'exportname-strict=true', 'exportname-list=error'];
    await using server = await nbdkit([...like, ...filters, ...names], { tcp: true });
    const options: NbdOptions = { profile: 'xenserver', tls: { certificate: host.cert } };
    await using disk = await connectNbd(server.uri, { ...options, exportName });
    const bytes = new Uint8Array(MIB);
    await disk.readInto(bytes, 0);
    expect(Buffer.compare(bytes, new Uint8Array(MIB).fill(9))).toBe(0);
    expect(await outcome(server, { ...options, exportName: '/other' })).toBe('NBD_EXPORT_CLOSED');
  });

  test('row 45: a server that demands TLS is not talked to in clear', async () => {
    await using server = await nbdkit([...required(pki.directory), 'memory', '1M'], { tcp: true });
    expect(await outcome(server, {})).toBe('NBD_TLS_REQUIRED');
    expect(await outcome(server, { profile: 'xenserver' })).toBe('NBD_EXPORT_CLOSED');
    expect(await outcome(server, { tls: { ca: pki.ca } })).toBe(MIB);
    expect(await outcome(server, { tls: { ca: pki.ca, servername: 'localhost' } })).toBe(MIB);
    expect(await outcome(server, { tls: { ca: pki.ca, servername: 'example.org' } })).toBe('NBD_CERTIFICATE_MISMATCH');
    expect(await outcome(server, { tls: {} })).toBe('NBD_CERTIFICATE_MISMATCH');
    expect(await outcome(server, { tls: { insecure: true } })).toBe(MIB);
  });

  test('row 46: a server without TLS is refused', async () => {
    await using server = await nbdkit(['--tls=off', 'memory', '1M']);
    expect(await outcome(server, { tls: { insecure: true } })).toBe('NBD_TLS_REFUSED');
  });

  test('row 47: the disk behind TLS, not the one before it', async () => {
    const args = ['--tls=on', `--tls-certificates=${pki.directory}`, '--filter=tls-fallback', 'pattern', '1M'];
    await using server = await nbdkit([...args, 'tlsreadme=hello'], { tcp: true });
    expect(await outcome(server, { tls: { ca: pki.ca } })).toBe(MIB);
  });

  test('row 48: self-signed, without our address: pinned it is trusted, even when it has expired', async () => {
    await using server = await nbdkit([...required(dir.file('host1.example')), 'memory', '1M'], { tcp: true });
    const { fingerprint256 } = new X509Certificate(host.cert);
    expect(await outcome(server, { tls: { certificate: host.cert } })).toBe(MIB);
    expect(await outcome(server, { tls: { fingerprint256 } })).toBe(MIB);
    expect(await outcome(server, { tls: { ca: host.cert, servername: 'host1.example' } })).toBe(MIB);
    expect(await outcome(server, { tls: { ca: host.cert } })).toBe('NBD_CERTIFICATE_MISMATCH');
    expect(await outcome(server, { tls: { certificate: expired.cert } })).toBe('NBD_CERTIFICATE_MISMATCH');
    await using old = await nbdkit([...required(dir.file('old.example')), 'memory', '1M'], { tcp: true });
    expect(await outcome(old, { tls: { certificate: expired.cert } })).toBe(MIB);
    expect(await outcome(old, { tls: { ca: expired.cert, servername: 'old.example' } })).toBe(
      'NBD_CERTIFICATE_MISMATCH',
    );
  });

  test('row 49: a server that wants our certificate', async () => {
    const args = [...required(pki.directory), '--tls-verify-peer', 'memory', '1M'];
    await using server = await nbdkit(args, { tcp: true });
    expect(await outcome(server, { tls: { ca: pki.ca } })).toMatch(/^NBD_(TLS_FAILED|CONNECTION_LOST)$/);
    expect(await outcome(server, { tls: { ca: pki.ca, clientCertificate: pki.client } })).toBe(MIB);
  });

  test('row 50: a pre-shared key', async () => {
    const key = Buffer.alloc(32, 0x5a);
    await writeFile(dir.file('keys.psk'), `alice:${key.toString('hex')}\n`);
    await using server = await nbdkit(['--tls=require', `--tls-psk=${dir.file('keys.psk')}`, 'memory', '1M'], {
      tcp: true,
    });
    expect(await outcome(server, { tls: { psk: { identity: 'alice', key } } })).toBe(MIB);
    const wrong = { identity: 'alice', key: Buffer.alloc(32, 1) };
    expect(await outcome(server, { tls: { psk: wrong } })).toMatch(/^NBD_(TLS_FAILED|CONNECTION_LOST)$/);
    await using other = await nbdkit([...required(pki.directory), 'memory', '1M'], { tcp: true });
    expect(await outcome(other, { tls: { psk: { identity: 'alice', key } } })).toMatch(
      /^NBD_(TLS_FAILED|CERTIFICATE_MISMATCH)$/,
    );
  });
});

describe.runIf(hasTool('qemu-nbd') && hasTool('openssl'))('qemu-nbd with TLS', () => {
  test('row 51: certificates', async () => {
    const image = dir.file('qemu.img');
    await writeFile(image, new Uint8Array(MIB));
    const creds = `tls-creds-x509,id=tls0,endpoint=server,dir=${pki.directory},verify-peer=no`;
    const args = ['--object', creds, '--tls-creds', 'tls0', '-f', 'raw', '-r', '-x', 'exp1', image];
    await using server = await qemuNbd(args, { tcp: true, exportName: 'exp1' });
    expect(await outcome(server, { tls: { ca: pki.ca } })).toBe(MIB);
    expect(await outcome(server, {})).toBe('NBD_TLS_REQUIRED');
  });

  test('row 52: a pre-shared key', async () => {
    const image = dir.file('qemu-psk.img');
    await writeFile(image, new Uint8Array(MIB));
    await mkdir(dir.file('psk'));
    await promisify(execFile)('psktool', ['-u', 'bob', '-p', `${dir.file('psk')}/keys.psk`]);
    const line = await readFile(`${dir.file('psk')}/keys.psk`, 'utf8');
    const key = Buffer.from(line.trim().split(':')[1]!, 'hex');
    const creds = `tls-creds-psk,id=tls0,endpoint=server,dir=${dir.file('psk')}`;
    const args = ['--object', creds, '--tls-creds', 'tls0', '-f', 'raw', '-r', '-x', 'exp1', image];
    await using server = await qemuNbd(args, { tcp: true, exportName: 'exp1' });
    expect(await outcome(server, { tls: { psk: { identity: 'bob', key } } })).toBe(MIB);
  });
});

describe.runIf(hasTool('nbd-server'))('nbd-server with TLS', () => {
  test('row 61: forced', async () => {
    const image = dir.file('nbd-server.img');
    await writeFile(image, new Uint8Array(MIB));
    const file = (name: string) => `${pki.directory}/${name}`;
    const tls = `force_tls=true\ncertfile=${file('server-cert.pem')}\nkeyfile=${file('server-key.pem')}\ncacertfile=${file('ca-cert.pem')}`;
    await using server = await nbdServer(
      (port) =>
        `[generic]\nallowlist=true\nlistenaddr=127.0.0.1\nport=${port}\n${tls}\n[disk1]\nexportname=${image}\nreadonly=true\n`,
      { exportName: 'disk1' },
    );
    expect(await outcome(server, {})).toBe('NBD_TLS_REQUIRED');
    // with a CA it asks for a certificate of ours, too
    expect(await outcome(server, { tls: { ca: pki.ca, clientCertificate: pki.client } })).toBe(MIB);
  });
});
