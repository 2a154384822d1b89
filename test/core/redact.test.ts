import { inspect } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { redact } from '../../src/core/index.ts';

const SESSION = 'OpaqueRef:6f1a2b3c-0000-4d5e-8f90-a1b2c3d4e5f6';
const ENCODED = encodeURIComponent(SESSION);

test.each([
  [`session ${SESSION} is invalid`, 'session OpaqueRef:<redacted> is invalid'],
  ['OpaqueRef:1', 'OpaqueRef:<redacted>'],
  [ENCODED, 'OpaqueRef%3A<redacted>'],
  [`/export?session_id=${SESSION}&task_id=x`, '/export?session_id=<redacted>&task_id=x'],
  [`/export?session_id=${ENCODED}&task_id=x`, '/export?session_id=<redacted>&task_id=x'],
  ['/export?session_id=trackid-1234', '/export?session_id=<redacted>'],
  [`"/7d-vdi?session_id=${SESSION}"`, '"/7d-vdi?session_id=<redacted>"'],
  [`nbds://host:10809/7d-vdi%3Fsession_id%3D${ENCODED}`, 'nbds://host:10809/7d-vdi%3Fsession_id%3D<redacted>'],
  [`Cookie: session_id=${SESSION}`, 'Cookie: session_id=<redacted>'],
  ['https://root:hunter2@host/export', 'https://root:<redacted>@host/export'],
  ['https://root:hun@ter2@host/export', 'https://root:<redacted>@host/export'],
  ['https://root:hun/ter2@host/export', 'https://root:<redacted>@host/export'],
  ['https://:hunter2@host', 'https://:<redacted>@host'],
  ['{"password":"hunter2","a":1}', '{"password":"<redacted>","a":1}'],
  ['{"password" : "hun\\"ter2"}', '{"password" : "<redacted>"}'],
  ['{"body":"{\\"password\\":\\"hunter2\\"}"}', '{"body":"{\\"password\\":\\"<redacted>\\"}"}'],
  ['{"pool_secret":"a/b/c"}', '{"pool_secret":"<redacted>"}'],
  ["{ password: 'hunter2' }", "{ password: '<redacted>' }"],
  [`{ password: "hun'ter2" }`, `{ password: "<redacted>" }`],
  ["{ 'session_id': 'abc' }", "{ 'session_id': '<redacted>' }"],
  ["{ sessionId: 'abc' }", "{ sessionId: '<redacted>' }"],
  ['password=hunter2&user=root', 'password=<redacted>&user=root'],
  ['Authorization: Basic cm9vdDpwdw==', 'Authorization: Basic <redacted>'],
  ['{"authorization":"Bearer abc.def"}', '{"authorization":"Bearer <redacted>"}'],
  ["[ 'Authorization', 'Basic cm9vdDpwdw==' ]", "[ 'Authorization', 'Basic <redacted>' ]"],
  [
    '{"method":"session.login_with_password","params":["root","pw"]}',
    '{"method":"session.login_with_password","params":[<redacted>',
  ],
  ['session.login_with_password("root", "p)w")', 'session.login_with_password(<redacted>'],
  [
    '-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----',
    '-----BEGIN RSA PRIVATE KEY-----<redacted>-----END RSA PRIVATE KEY-----',
  ],
])('%s', (text, clean) => {
  expect(redact(text)).toBe(clean);
  expect(redact(clean)).toBe(clean);
});

test.each([
  'OpaqueRef:NULL',
  'https://host:443/export?task_id=x',
  'nbd://[::1]:10809/disk',
  'password authentication failed',
  'session.login_with_password: SESSION_AUTHENTICATION_FAILED',
  'the VM "Secret santa: list" was not found',
  '7d9c1a4e-1d2f-4c3b-9a8b-112233445566',
])('leaves %s as it is', (text) => {
  expect(redact(text)).toBe(text);
});

test('no password survives, whatever it holds, in JSON or as Node prints it', () => {
  const password = fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme' }).map((text) => `hunter2${text}hunter2`);
  fc.assert(
    fc.property(password, (secret) => {
      const value = { user: 'root', password: secret, after: 'kept' };
      for (const text of [JSON.stringify(value), inspect(value, { breakLength: Infinity })]) {
        expect(redact(text)).not.toContain('hunter2');
        expect(redact(text)).toContain('kept');
      }
    }),
  );
});

test('long texts of any kind cost time in proportion to their length', () => {
  for (const unit of ['A', 'password', 'https://', 'a://a:a', 'OpaqueRef', '"', '\\', 'session_id="', 'password=\\']) {
    const start = process.cpuUsage().user;
    redact(unit.repeat(2 ** 18 / unit.length));
    expect(process.cpuUsage().user - start).toBeLessThan(5_000_000); // about 0.5 s at worst; quadratic: over 10 s
  }
});
