import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { connectHost, readFingerprint } from '../../src/host/index.ts';
import { startSimulator } from '../../src/simulator/index.ts';

test('the fingerprint that a host shows, at which nothing is asked of it; it can be pinned', async () => {
  await using simulator = await startSimulator({ hosts: 2 });
  const { hosts, resolveAddress, username, password, url } = simulator;
  for (const { address, fingerprint256 } of hosts) {
    expect(await readFingerprint(`https://${address}`, { resolveAddress })).toBe(fingerprint256);
  }
  expect(simulator.log.entries).toEqual([]);
  const tls = { fingerprint256: await readFingerprint(url) };
  await using host = await connectHost({ url, username, password, tls });
  expect(host.facts.productBrand).toBe('XCP-ng');
});

test('a host that is not there, does not answer, or is no url', async () => {
  const server = createServer((socket) => socket.resume()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  const url = `https://127.0.0.1:${port}`;
  await expect(readFingerprint(url, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'TIMEOUT', retryable: true });
  const stop = AbortSignal.abort(new Error('enough'));
  await expect(readFingerprint(url, { signal: stop })).rejects.toThrow('enough');
  await new Promise((resolve) => server.close(resolve));
  await expect(readFingerprint(url)).rejects.toMatchObject({ code: 'HOST_UNREACHABLE' });
  await expect(readFingerprint('http://127.0.0.1')).rejects.toThrow(TypeError);
  await expect(readFingerprint('https://root:secret@127.0.0.1')).rejects.toThrow(/credentials/);
});
