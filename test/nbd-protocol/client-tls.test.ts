import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import tls, { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { secureClient } from '../../src/nbd-protocol/client-tls.ts';
import { settingsOf } from '../../src/nbd-protocol/settings.ts';
import { type KeyPair, makeSelfSigned } from '../support/certificates.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

describe.runIf(hasTool('openssl'))('the suite of a TLS connection', () => {
  let dir: TempDir;
  let host: KeyPair;
  beforeAll(async () => {
    dir = await makeTempDir();
    host = await makeSelfSigned(dir.path, 'host1.example');
  });
  afterAll(() => dir[Symbol.asyncDispose]());

  /** What a server agrees on with us that takes the client's first choice. */
  async function agreed(maxVersion: 'TLSv1.2' | 'TLSv1.3'): Promise<string> {
    await using server = createServer((socket) => {
      new TLSSocket(socket, { isServer: true, ...host, maxVersion }).on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const settings = settingsOf({ host: '127.0.0.1', port, tls: { certificate: host.cert } });
    const secure = await secureClient(connect(port, '127.0.0.1'), settings);
    const { name } = secure.getCipher();
    secure.destroy();
    return name;
  }

  test('is the fastest of those that are safe', async () => {
    expect(await agreed('TLSv1.3')).toBe('TLS_AES_128_GCM_SHA256');
    expect(await agreed('TLSv1.2')).toBe('ECDHE-RSA-AES128-GCM-SHA256');
  });

  test('is what Node was told to offer', async () => {
    const before = tls.DEFAULT_CIPHERS;
    onTestFinished(() => {
      tls.DEFAULT_CIPHERS = before;
    });
    tls.DEFAULT_CIPHERS = 'TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256';
    expect(await agreed('TLSv1.3')).toBe('TLS_CHACHA20_POLY1305_SHA256');
  });
});
