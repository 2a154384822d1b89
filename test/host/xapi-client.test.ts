import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { Xapi } from 'xen-api';
import { parseTaskResult, XEN_API_VERSION } from '../../src/host/xapi-client.ts';

const require = createRequire(import.meta.url);

// What we rely on is not all public: a new release must be read before it is bundled.
test('xen-api is the release whose inside we know', () => {
  const path = require.resolve('xen-api/package.json');
  expect((JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version).toBe(XEN_API_VERSION);
});

test('xen-api has the members that we use', () => {
  const { prototype } = Xapi;
  for (const name of ['connect', 'disconnect', 'call', 'watchTask'] as const) {
    expect(prototype[name], name).toBeTypeOf('function');
  }
  expect(Object.getOwnPropertyDescriptor(prototype, 'status')?.get).toBeTypeOf('function');
  expect(Object.getOwnPropertyDescriptor(prototype, 'sessionId')?.get).toBeTypeOf('function');
});

test('xen-api makes its transport with the target’s URL, and calls it with method and arguments', async () => {
  const { default: transports } = await import('../../src/host/replacements/transports.ts');
  const seen: unknown[] = [];
  transports['contract'] = ({ url }) => {
    seen.push(`${url.protocol} ${url.hostname} ${url.port}`);
    return async (method, args) => {
      seen.push([method, args]);
      if (method === 'session.login_with_password') return 'OpaqueRef:session';
      if (method === 'pool.get_all_records') return { 'OpaqueRef:pool': { uuid: 'u', other_config: {} } };
      return [];
    };
  };
  const client = new Xapi({
    url: 'https://[::1]:8443',
    auth: { user: 'u', password: 'p@:/ ' },
    transport: 'contract',
    callConcurrency: Number.POSITIVE_INFINITY,
    callTimeout: 2 ** 31 - 1,
    eventPollDelay: 1,
    debounce: 1,
    watchEvents: false,
  });
  delete transports['contract'];
  await client.connect();
  expect(client.status).toBe('connected');
  expect(client.sessionId).toBe('OpaqueRef:session');
  expect(client._sessionOpen).toBeTypeOf('function');
  await client.call('VM.get_record', 'OpaqueRef:vm');
  await client.disconnect();
  expect(client.status).toBe('disconnected');
  expect(() => client.sessionId).toThrow();
  expect(seen).toEqual([
    'https: [::1] 8443',
    ['session.login_with_password', ['u', 'p@:/ ']],
    ['pool.get_all_records', ['OpaqueRef:session']],
    ['system.listMethods', []],
    ['VM.get_record', ['OpaqueRef:session', 'OpaqueRef:vm']],
    ['session.logout', ['OpaqueRef:session']],
  ]);
});

test('xen-api cannot send anything by itself', () => {
  const options = { auth: { user: 'u', password: 'p' }, callConcurrency: 1, callTimeout: 1, eventPollDelay: 1 };
  const make = (transport: string) =>
    new Xapi({ ...options, url: 'https://127.0.0.1', debounce: 1, watchEvents: false, transport });
  for (const transport of ['auto', 'json-rpc', 'xml-rpc']) expect(() => make(transport)).toThrow(/transport/);
});

test('the results of tasks: nothing, a reference, a list', async () => {
  expect(await parseTaskResult('')).toBe('');
  expect(await parseTaskResult('<value>OpaqueRef:1</value>')).toBe('OpaqueRef:1');
  expect(
    await parseTaskResult(
      '<value><array><data><value>OpaqueRef:1</value><value>OpaqueRef:2</value></data></array></value>',
    ),
  ).toEqual(['OpaqueRef:1', 'OpaqueRef:2']);
  await expect(parseTaskResult('<value>')).rejects.toMatchObject({ code: 'HOST_ANSWER_INVALID' });
});
