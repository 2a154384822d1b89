import { expect, test } from 'vitest';
import { BackupError, FormatError, HostError } from '../../src/core/index.ts';

test('an error has its class as its name, its code, and modest defaults', () => {
  const error = new BackupError('TIMEOUT', 'too slow');
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({
    name: 'BackupError',
    code: 'TIMEOUT',
    message: 'too slow',
    retryable: false,
    facts: {},
  });
  expect('cause' in error).toBe(false);
  expect(String(error)).toBe('BackupError: too slow');
});

test('the cause is kept, also when it is undefined', () => {
  const cause = new Error('why');
  expect(new BackupError('TIMEOUT', 'x', { cause }).cause).toBe(cause);
  expect('cause' in new BackupError('TIMEOUT', 'x', { cause: undefined })).toBe(true);
});

test('a format error says what, where, expected, got, and in which file', () => {
  const at = { what: 'cookie', offset: 512, expected: 'conectix', actual: 'xxxxxxxx' };
  const error = new FormatError('VHD_COOKIE', at);
  expect(error).toBeInstanceOf(BackupError);
  expect(error.message).toBe('cookie at offset 512: expected conectix, got xxxxxxxx');
  expect(error.at).toBe(at);
  expect(error.facts).toEqual(at);
  const named = new FormatError('VHD_COOKIE', { ...at, file: 'a.vhd' }, { retryable: true, facts: { block: 3 } });
  expect(named.message).toBe('a.vhd: cookie at offset 512: expected conectix, got xxxxxxxx');
  expect(named).toMatchObject({ name: 'FormatError', retryable: true, facts: { ...at, file: 'a.vhd', block: 3 } });
});

test('facts can be written as JSON, also with 64-bit integers in them', () => {
  const error = new FormatError('VHD_SIZE', { what: 'size', offset: 0, expected: 1n, actual: 2n ** 64n - 1n });
  expect(JSON.parse(JSON.stringify(error.facts))).toMatchObject({ expected: '1', actual: '18446744073709551615' });
});

test("a host error carries the host's own code", () => {
  const error = new HostError('VDI_IN_USE', ['vdi', 'destroy'], 'the disk is in use', { retryable: true });
  expect(error).toMatchObject({
    name: 'HostError',
    code: 'HOST_CALL_FAILED',
    xapiCode: 'VDI_IN_USE',
    xapiParams: ['vdi', 'destroy'],
    retryable: true,
    facts: { xapiCode: 'VDI_IN_USE', xapiParams: ['vdi', 'destroy'] },
  });
  expect(new HostError('X', [], 'x', { code: 'HOST_NOT_SUPPORTED' }).code).toBe('HOST_NOT_SUPPORTED');
});
