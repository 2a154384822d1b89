import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatNbdUri, NbdError, parseNbdUri } from '../../src/nbd-protocol/index.ts';

test.each([
  ['nbd://example.com', { tls: false, host: 'example.com', port: 10809, exportName: '' }],
  ['nbd://example.com/', { exportName: '' }],
  ['NBD://Example.com:123/disk', { host: 'Example.com', port: 123, exportName: 'disk' }],
  ['nbds://h//disk', { tls: true, exportName: '/disk' }],
  ['nbds://h//1f%3Fsession_id=OpaqueRef%3Ax', { exportName: '/1f?session_id=OpaqueRef:x' }],
  ['nbd://h/a/../b/./c', { exportName: 'a/../b/./c' }],
  ['nbd://[::1]:10810/x', { host: '::1', port: 10810 }],
  ['nbd://[fe80::1%25eth0]/', { host: 'fe80::1%eth0', port: 10809 }],
  ['nbd:///x', { host: 'localhost', exportName: 'x' }],
  ['nbds://alice@h/x', { username: 'alice', host: 'h' }],
  ['nbd+unix:///x?socket=/run/a+b%20c', { socketPath: '/run/a+b c', exportName: 'x' }],
  ['nbds+unix://?socket=%00/abstract', { tls: true, socketPath: '\0/abstract', exportName: '' }],
  ['nbds://h/?tls-hostname=host1&tls-verify-peer=0', { tlsHostname: 'host1', tlsVerifyPeer: false }],
  ['nbd://h/?foo=1&bar', { unknownParameters: ['foo', 'bar'] }],
  ['nbd://h/%C3%BC', { exportName: 'ü' }],
])('%s', (uri, expected) => {
  expect(parseNbdUri(uri)).toMatchObject(expected);
});

test.each([
  'nbd:h/secret',
  'http://h/secret',
  'nbd://h:99999/secret',
  'nbd://h:0/secret',
  'nbd://h:port/secret',
  'nbd://[::1/secret',
  'nbd://h/%zzsecret',
  'nbd://h/%c3%28secret',
  'nbd+unix:///secret',
  'nbd+unix://host/secret?socket=/s',
  'nbd://h/secret?socket=/s',
  'nbds://h/secret?tls-type=anon',
  'nbds://h/secret?tls-verify-peer=yes',
  'nbds://h/secret?tls-hostname=a&tls-hostname=b',
  'nbd://h/secret#fragment',
])('%s is refused, and its export not told', (uri) => {
  let error: unknown;
  try {
    parseNbdUri(uri);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(NbdError);
  expect(error).toMatchObject({ code: 'NBD_URI_INVALID' });
  expect(String(error)).not.toContain('secret');
});

test('any export name survives being written as a URI and read again', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.boolean(), fc.constantFrom('h', '::1'), (name, tls, host) => {
      const uri = formatNbdUri({ host, port: 7 }, name, tls);
      expect(parseNbdUri(uri)).toMatchObject({ exportName: name, tls, host, port: 7 });
      const unix = formatNbdUri({ socketPath: `/run/${name}x` }, name, tls);
      expect(parseNbdUri(unix)).toMatchObject({ exportName: name, socketPath: `/run/${name}x` });
    }),
  );
});
