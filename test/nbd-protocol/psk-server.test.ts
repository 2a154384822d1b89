import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, NbdError, type NbdServerTlsOptions, serveNbd } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);
const bytes = patterned(MIB, 7);
const key = randomBytes(32);
const served = (tls: NbdServerTlsOptions) => serveNbd({ disk: memoryDisk(bytes) }, { tls });

describe('a server with pre-shared keys', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('takes who has the key, and nobody else: %s', async (version) => {
    await using server = await served({ psk: { alice: key }, minVersion: version, maxVersion: version });
    await using disk = await connectNbd(server.uri, { tls: { psk: { identity: 'alice', key } } });
    const read = new Uint8Array(MIB);
    await disk.readInto(read, 0);
    expect(Buffer.compare(read, bytes)).toBe(0);
    const strangers = [
      { psk: { identity: 'alice', key: randomBytes(32) } },
      { psk: { identity: 'constructor', key } },
      { insecure: true },
    ];
    for (const tls of strangers) {
      const error = await connectNbd(server.uri, { tls, reconnect: { tries: 0 } }).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(NbdError);
      expect((error as NbdError).code).toMatch(/^NBD_(TLS_FAILED|CONNECTION_LOST|CERTIFICATE_MISMATCH)$/);
    }
    const inClear = connectNbd({ host: '127.0.0.1', port: server.port, exportName: 'disk' });
    await expect(inClear).rejects.toMatchObject({ code: 'NBD_TLS_REQUIRED' });
  });

  test('needs keys or a certificate, not both', async () => {
    await expect(served({})).rejects.toThrow(TypeError);
    await expect(served({ psk: { alice: key }, key: 'k', cert: 'c' })).rejects.toThrow(TypeError);
    await expect(served({ psk: { alice: key }, clientCa: 'ca' })).rejects.toThrow(TypeError);
  });

  test.runIf(hasTool('nbdcopy'))('libnbd reads it', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('keys.psk'), `alice:${key.toString('hex')}\n`);
    await using server = await served({ psk: { alice: key } });
    const uri = `nbds://alice@127.0.0.1:${server.port}/disk?tls-psk-file=${dir.file('keys.psk')}`;
    const { stdout } = await run('nbdcopy', [uri, '-'], { encoding: 'buffer', maxBuffer: 2 * MIB });
    expect(Buffer.compare(stdout, bytes)).toBe(0);
  });
});
