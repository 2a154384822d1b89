import { X509Certificate } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Disk, hashDisk, memoryDisk } from '../../src/disk/index.ts';
import {
  connectNbd,
  listNbdExports,
  NbdError,
  type NbdOptions,
  type NbdServerOptions,
  serveNbd,
} from '../../src/nbd-protocol/index.ts';
import { type KeyPair, makeSelfSigned } from '../support/certificates.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';

const MIB = 1024 * 1024;
let dir: TempDir;
let hostCertificate: KeyPair;
let otherCertificate: KeyPair;

beforeAll(async () => {
  dir = await makeTempDir();
  hostCertificate = await makeSelfSigned(dir.path, 'host1.example');
  otherCertificate = await makeSelfSigned(dir.path, 'host2.example');
});
afterAll(() => dir[Symbol.asyncDispose]());

/** 5 MiB and one sector, with a hole from 1 to 3 MiB. */
function holey(): Uint8Array {
  const bytes = patterned(5 * MIB + 512);
  bytes.fill(0, MIB, 3 * MIB);
  return bytes;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(NbdError);
  return (error as NbdError).code;
}

const xenserverTls = (): Pick<NbdServerOptions, 'tls' | 'personality'> => ({
  personality: 'xenserver',
  tls: { ...hostCertificate, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ecdhCurve: 'secp384r1' },
});

describe.each([
  ['standard, plain', () => ({}), () => ({})],
  ['standard, TLS', () => ({ tls: hostCertificate }), () => ({ tls: { certificate: hostCertificate.cert } })],
  ['xenserver, plain', () => ({ personality: 'xenserver' }), () => ({ profile: 'xenserver' })],
  [
    'xenserver, TLS',
    xenserverTls,
    () => ({ profile: 'xenserver', tls: { certificate: hostCertificate.cert }, connections: 3 }),
  ],
] as [string, () => NbdServerOptions, () => NbdOptions][])('%s', (_, serverOptions, clientOptions) => {
  test('reads every byte, whole and in odd pieces', async () => {
    const bytes = holey();
    await using server = await serveNbd({ disk: memoryDisk(bytes) }, serverOptions());
    await using disk = await connectNbd(server.uri, clientOptions());
    expect(disk.size).toBe(bytes.byteLength);
    expect(await hashDisk(disk)).toBe(await hashDisk(memoryDisk(bytes)));
    for (const [offset, length] of [
      [0, bytes.byteLength],
      [MIB - 1, 2],
      [4095, 4098],
      [3 * MIB - 7, 2 * MIB],
      [bytes.byteLength - 1, 1],
      [bytes.byteLength - 513, 513],
      [7, 0],
    ] as const) {
      const target = new Uint8Array(length);
      await disk.readInto(target, offset);
      expect(Buffer.compare(target, bytes.subarray(offset, offset + length)), `${length} at ${offset}`).toBe(0);
    }
  });

  test('refuses a read past the end before it is sent', async () => {
    await using server = await serveNbd({ disk: memoryDisk(new Uint8Array(4096)) }, serverOptions());
    await using disk = await connectNbd(server.uri, clientOptions());
    await expect(disk.readInto(new Uint8Array(2), 4095)).rejects.toThrow(RangeError);
    await disk.readInto(new Uint8Array(1), 4095);
  });

  test('ends every connection with a goodbye', async () => {
    const ended: number[] = [];
    const released: Disk[] = [];
    const bytes = memoryDisk(holey());
    await using server = await serveNbd(async () => bytes, {
      ...serverOptions(),
      release: (disk) => {
        released.push(disk);
      },
      hooks: {
        onStep: (step, { connectionId }) => {
          if (step.kind === 'ended') ended.push(connectionId);
          return undefined;
        },
      },
    });
    const disk = await connectNbd(server.uri, clientOptions());
    await disk.readInto(new Uint8Array(5 * MIB), 0);
    const opened = disk.connectionCount;
    await disk.close();
    expect(ended.length).toBeGreaterThanOrEqual(opened);
    expect(released.length).toBeGreaterThanOrEqual(opened);
    expect(await codeOf(disk.readInto(new Uint8Array(1), 0))).toBe('NBD_CLOSED');
  });
});

test('tells holes where block status is agreed, and all as data where it is not', async () => {
  await using standard = await serveNbd({ disk: memoryDisk(holey()) });
  await using plain = await serveNbd({ disk: memoryDisk(holey()) }, { personality: 'xenserver' });
  await using disk = await connectNbd(standard.uri);
  expect(await toArray(disk.extents({ offset: 100, length: 4 * MIB }))).toEqual([
    { offset: 100, length: MIB - 100, kind: 'data' },
    { offset: MIB, length: 2 * MIB, kind: 'zero' },
    { offset: 3 * MIB, length: MIB + 100, kind: 'data' },
  ]);
  await using other = await connectNbd(plain.uri, { profile: 'xenserver' });
  expect(await toArray(other.extents())).toEqual([{ offset: 0, length: 5 * MIB + 512, kind: 'data' }]);
});

test('writes, zeroes and flushes; a read-only export refuses with a type', async () => {
  const bytes = patterned(MIB);
  await using server = await serveNbd({ disk: memoryDisk(bytes) });
  await using frozen = await serveNbd({ disk: memoryDisk(bytes) }, { readOnly: true });
  await using disk = await connectNbd(server.uri);
  const data = patterned(600_000, 9);
  await disk.write(data, 12_345);
  await disk.writeZeroes(1000, 2000);
  await disk.flush();
  expect(Buffer.compare(bytes.subarray(12_345, 612_345), data)).toBe(0);
  expect(bytes.subarray(1000, 3000).every((byte) => byte === 0)).toBe(true);
  await using reader = await connectNbd(frozen.uri);
  expect(reader.readOnly).toBe(true);
  expect(await codeOf(reader.write(data, 0))).toBe('NBD_READ_ONLY');
});

test('lists exports; XenServer does not', async () => {
  await using server = await serveNbd({ one: memoryDisk(new Uint8Array(1)), two: memoryDisk(new Uint8Array(1)) });
  await using other = await serveNbd({ one: memoryDisk(new Uint8Array(512)) }, { personality: 'xenserver' });
  expect((await listNbdExports(server.uri)).map(({ name }) => name)).toEqual(['one', 'two']);
  expect(await codeOf(listNbdExports(other.uri))).toBe('NBD_REFUSED');
});

describe('TLS is never weakened', () => {
  test('another certificate is refused before the export is named', async () => {
    const steps: string[] = [];
    const onStep = ({ kind }: { kind: string }) => void steps.push(kind) as undefined;
    await using server = await serveNbd({ disk: memoryDisk(holey()) }, { ...xenserverTls(), hooks: { onStep } });
    const fingerprint256 = new X509Certificate(otherCertificate.cert).fingerprint256;
    for (const tls of [{ certificate: otherCertificate.cert }, { fingerprint256 }, {}]) {
      expect(await codeOf(connectNbd(server.uri, { profile: 'xenserver', tls }))).toBe('NBD_CERTIFICATE_MISMATCH');
    }
    expect(steps).not.toContain('export');
    const right = new X509Certificate(hostCertificate.cert).fingerprint256;
    await using disk = await connectNbd(server.uri, { profile: 'xenserver', tls: { fingerprint256: right } });
    expect(disk.size).toBe(5 * MIB + 512);
  });

  test('a CA is checked with the name', async () => {
    await using server = await serveNbd({ disk: memoryDisk(holey()) }, { tls: hostCertificate });
    const ca = hostCertificate.cert;
    expect(await codeOf(connectNbd(server.uri, { tls: { ca } }))).toBe('NBD_CERTIFICATE_MISMATCH');
    await using disk = await connectNbd(server.uri, { tls: { ca, servername: 'host1.example' } });
    expect(disk.size).toBe(5 * MIB + 512);
  });

  test('a server without TLS is refused, and one with TLS is not talked to in clear', async () => {
    await using plain = await serveNbd({ disk: memoryDisk(holey()) });
    const tls = { certificate: hostCertificate.cert };
    expect(await codeOf(connectNbd(plain.uri, { tls }))).toBe('NBD_TLS_REFUSED');
    await using secure = await serveNbd({ disk: memoryDisk(holey()) }, { tls: hostCertificate });
    const { port } = secure;
    expect(await codeOf(connectNbd({ host: '127.0.0.1', port, exportName: 'disk' }))).toBe('NBD_TLS_REQUIRED');
  });
});

describe('xenserver says no by closing', () => {
  const name = '/1fb5?session_id=OpaqueRef:0d3f1a52-aaaa-bbbb-cccc-0123456789ab';

  test.each([
    ['no purpose: closed before the greeting', { mode: () => 'closed' }, 'NBD_NO_GREETING', true],
    ['no slot: closed before the greeting', { maxConnections: 0 }, 'NBD_NO_GREETING', true],
    ['no such export: closed after EXPORT_NAME', {}, 'NBD_EXPORT_CLOSED', true],
  ] as [string, NbdServerOptions, string, boolean][])('%s', async (_, options, code, retryable) => {
    await using server = await serveNbd(async () => undefined, { personality: 'xenserver', ...options });
    const error = await connectNbd({
      port: server.port,
      host: server.address,
      exportName: name,
      profile: 'xenserver',
    }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code,
      retryable,
      server: `127.0.0.1:${server.port}`,
      exportName: '/1fb5?<redacted>',
    });
    expect(String(error)).not.toContain('0d3f1a52');
  });

  test('a read error is a closed connection within data, and is named as one', async () => {
    const broken: Disk = {
      ...memoryDisk(holey()),
      readInto: () => Promise.reject(new Error('bad sector')),
    };
    await using server = await serveNbd({ disk: broken }, { personality: 'xenserver' });
    await using disk = await connectNbd(server.uri, { profile: 'xenserver', reconnect: { tries: 2, delayMs: 1 } });
    const read = disk.readInto(new Uint8Array(4096), 0);
    await expect(read).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST', stage: 'transmission', retryable: true });
  });
});

test('a connection lost within data is opened again, and only what was outstanding is read again', async () => {
  const bytes = patterned(8 * MIB);
  const reads: number[] = [];
  let cuts = 3;
  await using server = await serveNbd(
    { disk: memoryDisk(bytes) },
    {
      personality: 'xenserver',
      hooks: {
        onStep(step) {
          if (step.kind !== 'request') return undefined;
          reads.push(step.offset);
          return reads.length % 3 === 0 && cuts-- > 0 ? 'cut' : undefined;
        },
      },
    },
  );
  // One request at a time: a cut may also lose replies that the server has sent and the client has not got yet.
  const options = { profile: 'xenserver', connections: 1, maxInFlight: 1, reconnect: { delayMs: 1 } } as const;
  await using disk = await connectNbd(server.uri, options);
  const target = new Uint8Array(bytes.byteLength);
  await disk.readInto(target, 0);
  expect(Buffer.compare(target, bytes)).toBe(0);
  expect(reads.length).toBe(8 + 3);
});

test('slots are asked for one connection at a time, and given back after each has ended', async () => {
  let held = 0;
  let most = 0;
  const acquireSlot = async () => {
    most = Math.max(most, ++held);
    return () => void held--;
  };
  await using server = await serveNbd({ disk: memoryDisk(holey()) }, { personality: 'xenserver' });
  const options = { profile: 'xenserver', connections: 2, acquireSlot, maxInFlight: 1 } as const;
  const disk = await connectNbd(server.uri, options);
  await disk.readInto(new Uint8Array(5 * MIB), 0);
  await disk.close();
  expect(most).toBe(2);
  expect(held).toBe(0);
});

test('an aborted read rejects with its reason, and the disk can be read on', async () => {
  const bytes = holey();
  const gate = Promise.withResolvers<void>();
  const slow: Disk = {
    ...memoryDisk(bytes),
    async readInto(target, offset, options) {
      if (offset < MIB) await gate.promise;
      await memoryDisk(bytes).readInto(target, offset, options);
    },
  };
  await using server = await serveNbd({ disk: slow });
  await using disk = await connectNbd(server.uri);
  const controller = new AbortController();
  const reading = disk.readInto(new Uint8Array(MIB), 0, { signal: controller.signal });
  const reason = new Error('enough');
  controller.abort(reason);
  await expect(reading).rejects.toBe(reason);
  gate.resolve();
  const target = new Uint8Array(MIB);
  await disk.readInto(target, 3 * MIB);
  expect(Buffer.compare(target, bytes.subarray(3 * MIB, 4 * MIB))).toBe(0);
});

test('a host name with addresses that do not answer', async () => {
  const bytes = holey();
  await using server = await serveNbd({ disk: memoryDisk(bytes) });
  await using disk = await connectNbd({ host: 'localhost', port: server.port, exportName: 'disk' });
  expect(await hashDisk(disk)).toBe(await hashDisk(memoryDisk(bytes)));
});

test('nobody there', async () => {
  const server = await serveNbd({ disk: memoryDisk(holey()) });
  await server.close();
  await expect(connectNbd(server.uri)).rejects.toMatchObject({
    code: 'NBD_CONNECT_FAILED',
    stage: 'connect',
    retryable: true,
  });
});

test('connecting is given up with the reason of the signal, and gives its slot back', async () => {
  let held = 0;
  const acquireSlot = async () => {
    held++;
    return () => void held--;
  };
  const stop = new AbortController();
  const reason = new Error('enough');
  await using server = await serveNbd(
    { disk: memoryDisk(holey()) },
    {
      hooks: {
        onStep({ kind }) {
          if (kind === 'option') stop.abort(reason);
          return undefined;
        },
      },
    },
  );
  await expect(connectNbd(server.uri, { signal: stop.signal, acquireSlot })).rejects.toBe(reason);
  expect(held).toBe(0);
});
