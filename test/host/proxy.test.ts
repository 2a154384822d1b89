import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { type ConnectHostOptions, connectHost } from '../../src/host/index.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { type KeyPair, makePki } from '../support/certificates.ts';
import { tempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;

interface Proxy extends AsyncDisposable {
  readonly url: string;
  /** What it was asked to connect to, with the credentials it was shown. */
  readonly asked: readonly { readonly target: string; readonly credentials: string | undefined }[];
}

interface ProxyOptions {
  /** The status of its answer. */
  readonly refuse?: number;
  readonly user?: string;
  /** It speaks TLS. */
  readonly tls?: KeyPair;
}

/** A proxy that knows how to CONNECT. */
async function startProxy({ refuse, user, tls }: ProxyOptions = {}): Promise<Proxy> {
  const asked: { target: string; credentials: string | undefined }[] = [];
  const sockets = new Set<Duplex>();
  const server = tls === undefined ? createServer() : createTlsServer(tls);
  const scheme = tls === undefined ? 'http' : 'https';
  server.on('connect', ({ url = '', headers }: IncomingMessage, client: Duplex) => {
    asked.push({ target: url, credentials: headers['proxy-authorization'] });
    sockets.add(client);
    client.on('error', () => {});
    if (refuse !== undefined) return client.end(`HTTP/1.1 ${refuse} No\r\n\r\n`);
    const { hostname, port } = new URL(`http://${url}`);
    const upstream = connectTcp({ host: hostname, port: Number(port) });
    sockets.add(upstream);
    upstream.on('error', () => client.destroy());
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
    upstream.on('connect', () => {
      client.write('HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n');
      client.pipe(upstream).pipe(client);
    });
    return undefined;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `${scheme}://${user === undefined ? '' : `${user}@`}127.0.0.1:${port}`,
    asked,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const connect = ({ url, username, password, certificate }: Simulator, options: Partial<ConnectHostOptions>) =>
  connectHost({ url, username, password, tls: { certificate }, ...options });

test('calls and transfers go through it, under TLS from end to end', async () => {
  await using simulator = await startSimulator();
  await using proxy = await startProxy({ user: 'me:p%40ss' });
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  await using host = await connect(simulator, { proxy: proxy.url });
  let bytes = 0;
  await using transfer = await host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' });
  for await (const chunk of transfer.chunks) bytes += chunk.byteLength;
  expect(bytes).toBe(4 * MIB);
  expect(proxy.asked.length).toBeGreaterThan(1);
  const target = new URL(simulator.url).host;
  const credentials = `Basic ${Buffer.from('me:p@ss').toString('base64')}`;
  for (const ask of proxy.asked) expect(ask).toEqual({ target, credentials });
});

test('a proxy that speaks TLS is checked against the authorities that Node knows', async () => {
  await using simulator = await startSimulator();
  const { ca, server: tls } = await makePki(await tempDir());
  await using proxy = await startProxy({ tls, user: 'me:secret' });
  await expect(connect(simulator, { proxy: proxy.url })).rejects.toMatchObject({
    code: 'HOST_CERTIFICATE_MISMATCH',
    message: expect.stringContaining(new URL(proxy.url).host) as string,
  });
  expect(proxy.asked).toEqual([]);
  const known = getCACertificates('default');
  setDefaultCACertificates([...known, ca]);
  try {
    await using host = await connect(simulator, { proxy: proxy.url });
    expect(host.label).toBe(new URL(simulator.url).host);
    expect(proxy.asked.length).toBeGreaterThan(0);
  } finally {
    setDefaultCACertificates(known);
  }
});

describe('a proxy', () => {
  test.each([403, 407, 502])('that answers %d is a host that cannot be reached', async (refuse) => {
    await using simulator = await startSimulator();
    await using proxy = await startProxy({ refuse, user: 'me:secret' });
    const error: unknown = await connect(simulator, { proxy: proxy.url }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: 'HOST_UNREACHABLE',
      message: expect.stringContaining(String(refuse)) as string,
    });
    expect(String((error as Error).stack)).not.toContain('secret');
  });

  test.each([
    ['that is none', 'SSH-2.0-OpenSSH_9.2\r\n\r\n', 'HOST_ANSWER_INVALID'],
    ['that never ends its answer', `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(20_000)}`, 'HOST_ANSWER_INVALID'],
  ])('%s is told', async (_, answer, code) => {
    await using simulator = await startSimulator();
    const server = createTcpServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end(answer),
    ).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await expect(connect(simulator, { proxy: `http://127.0.0.1:${port}` })).rejects.toMatchObject({ code });
    server.close();
    await once(server, 'close');
  });

  test('that says nothing is a timeout; one that is not there is unreachable', async () => {
    await using simulator = await startSimulator();
    const server = createTcpServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const proxy = `http://127.0.0.1:${port}`;
    await expect(connect(simulator, { proxy, timeouts: { connectMs: 50 } })).rejects.toMatchObject({ code: 'TIMEOUT' });
    server.close();
    await once(server, 'close');
    await expect(connect(simulator, { proxy })).rejects.toMatchObject({ code: 'HOST_UNREACHABLE' });
    await expect(connect(simulator, { proxy: 'socks5://127.0.0.1' })).rejects.toThrow(TypeError);
    const half: unknown = await connect(simulator, { proxy: 'http://me:100%@127.0.0.1' }).catch(
      (error: unknown) => error,
    );
    expect(half).toBeInstanceOf(TypeError);
    expect(String(half)).not.toContain('100');
  });
});

test('a host by its IPv6 address', async () => {
  await using simulator = await startSimulator();
  const vm = await simulator.createVm({ disks: [{ size: 2 * MIB }], powerState: 'Halted' });
  const asked: string[] = [];
  const { port } = new URL(simulator.url);
  await using host = await connect(simulator, {
    url: 'https://[2001:db8::1]',
    resolveAddress(address) {
      asked.push(address);
      return { host: '127.0.0.1', port: Number(port) };
    },
  });
  expect(host.label).toBe('[2001:db8::1]');
  await using transfer = await host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' });
  for await (const _ of transfer.chunks);
  expect(new Set(asked)).toEqual(new Set(['2001:db8::1']));
});

test('a transfer that never ends is ended', async () => {
  await using simulator = await startSimulator();
  const vm = await simulator.createVm({ disks: [{ size: 4 * MIB }], powerState: 'Halted' });
  await using host = await connect(simulator, { timeouts: { totalMs: 300 } });
  simulator.fault('stall', { after: MIB });
  const read = async () => {
    await using transfer = await host.exportDisk(vm.disks[0]!.uuid, { format: 'raw' });
    for await (const _ of transfer.chunks);
  };
  await expect(read()).rejects.toMatchObject({ code: 'TIMEOUT', retryable: true });
  expect((await host.listRecords('task')).map(({ name_label }) => name_label)).toEqual([]);
});
