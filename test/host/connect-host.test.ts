import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BackupError, HostError } from '../../src/core/index.ts';
import { createExchangeLog } from '../../src/host/exchange-log.ts';
import { connectHost } from '../../src/host/index.ts';
import { createRpc } from '../../src/host/rpc.ts';
import { resolveTimeouts } from '../../src/host/timeouts.ts';
import { createTrust } from '../../src/host/trust.ts';
import { createXapiClient } from '../../src/host/xapi-client.ts';
import { selfSigned, signedByAuthority } from './support/certificate.ts';
import { Refused, type ScriptedHost, scriptedHost } from './support/scripted-host.ts';

let remote: ScriptedHost;

beforeEach(async () => {
  remote = await scriptedHost();
});
afterEach(async () => {
  await remote[Symbol.asyncDispose]();
});

const failure = async (work: Promise<unknown>): Promise<BackupError> => {
  const error = await work.then(
    () => expect.fail('expected a rejection'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BackupError);
  return error as BackupError;
};

describe('connectHost', () => {
  test('logs in under its own name, reads what the pool says about itself, and logs out', async () => {
    const host = await remote.connect({ originator: 'acme-backup' });
    expect(host.facts).toEqual({
      poolUuid: 'd2f0c1a4-0000-4000-8000-000000000001',
      poolName: 'pool',
      productBrand: 'XCP-ng',
      productVersion: '8.3.0',
      apiVersion: '2.21',
      xapiVersion: '25.6.0',
      cbtLicensed: true,
    });
    expect(host.label).toBe(`127.0.0.1:${remote.port}`);
    expect(remote.calls.find(({ method }) => method === 'session.login_with_password')?.params).toEqual([
      'root',
      remote.password,
      '1.1',
      'acme-backup',
    ]);
    expect(remote.sessions.size).toBe(1);
    await host.close();
    await host.close();
    expect(remote.sessions.size).toBe(0);
    expect(await failure(host.call('pool.get_all'))).toMatchObject({ xapiCode: 'SESSION_INVALID' });
  });

  test('a wrong password is HOST_AUTHENTICATION_FAILED', async () => {
    const error = await failure(remote.connect({ password: 'guess' }));
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({
      code: 'HOST_AUTHENTICATION_FAILED',
      xapiCode: 'SESSION_AUTHENTICATION_FAILED',
      retryable: false,
    });
    expect(error.message).not.toContain('guess');
  });

  test('nobody listening is HOST_UNREACHABLE', async () => {
    const nobody = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => nobody.once('listening', resolve));
    const { port } = nobody.address() as { port: number };
    await new Promise((resolve) => nobody.close(resolve));
    const error = await failure(connectHost({ url: `https://127.0.0.1:${port}`, username: 'root', password: 'x' }));
    expect(error).toMatchObject({ code: 'HOST_UNREACHABLE', retryable: true, facts: { errno: 'ECONNREFUSED' } });
  });

  test('a member names its coordinator: the login goes there, certificate and all', async () => {
    const login = remote.openMethods['session.login_with_password']!;
    remote.openMethods['session.login_with_password'] = (...args) => {
      remote.openMethods['session.login_with_password'] = login;
      void args;
      throw new Refused('HOST_IS_SLAVE', '127.0.0.2');
    };
    await using host = await remote.connect();
    expect(host.facts.poolName).toBe('pool');
    const logins = remote.calls.filter(({ method }) => method === 'session.login_with_password');
    expect(logins.map(({ address }) => address)).toEqual(['127.0.0.1', '127.0.0.2']);
    expect(remote.calls.at(-1)?.address).toBe('127.0.0.2');
  });

  test('a client that the caller holds makes the calls, and stays connected', async () => {
    const trust = createTrust({ fingerprint256: remote.certificate.fingerprint256 });
    const rpc = createRpc({
      trust,
      timeouts: resolveTimeouts(),
      originator: 'caller',
      exchanges: createExchangeLog(undefined),
    });
    const target = { protocol: 'https:', hostname: '127.0.0.1', port: String(remote.port) };
    const client = createXapiClient({ target, username: 'root', password: remote.password, rpc });
    await client.connect();
    const host = await connectHost({ url: remote.url, client });
    expect(host.facts.poolName).toBe('pool');
    remote.methods['VM.snapshot'] = () => 'OpaqueRef:new';
    expect(await host.callAsync('VM.snapshot', [])).toBe('OpaqueRef:new');
    await host.close();
    expect(remote.sessions.size).toBe(1);
    expect(remote.calls.filter(({ method }) => method.startsWith('session.'))).toHaveLength(1);
    await client.disconnect();
    await rpc.settle(1000);
    rpc.close();
  });

  test('a host that takes the connection and says nothing is TIMEOUT', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => silent.once('listening', resolve));
    const { port } = silent.address() as { port: number };
    const url = `https://127.0.0.1:${port}`;
    const error = await failure(connectHost({ url, username: 'root', password: 'x', timeouts: { connectMs: 50 } }));
    expect(error).toMatchObject({ code: 'TIMEOUT', retryable: true });
    silent.close();
  });

  test('an abort while connecting rejects with its reason', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    remote.openMethods['session.login_with_password'] = () => {
      abort.abort(reason);
      return new Promise(() => {});
    };
    await expect(remote.connect({ signal: abort.signal })).rejects.toBe(reason);
  });

  test('an abort after the login has come through logs out again', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    let asked = false;
    remote.methods['host.get_record'] = () => {
      asked = true;
      abort.abort(reason);
      return new Promise(() => {});
    };
    await expect(remote.connect({ signal: abort.signal })).rejects.toBe(reason);
    expect(asked).toBe(true);
    expect(remote.sessions.size).toBe(0);
  });

  test('an abort closes the socket that is being opened, too', { timeout: 10_000 }, async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const closed = Promise.withResolvers<void>();
    const silent = createServer((socket) => {
      socket.on('error', () => {}).on('close', () => closed.resolve());
      socket.resume();
      abort.abort(reason);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => silent.once('listening', resolve));
    const { port } = silent.address() as { port: number };
    const url = `https://127.0.0.1:${port}`;
    const connecting = connectHost({ url, username: 'root', password: 'x', signal: abort.signal });
    await expect(connecting).rejects.toBe(reason);
    await closed.promise;
    silent.close();
  });

  test('credentials in the URL, and a missing password, are refused before anything is sent', async () => {
    const tls = { fingerprint256: remote.certificate.fingerprint256 };
    await expect(connectHost({ url: 'https://root:pw@127.0.0.1', tls })).rejects.toThrow(TypeError);
    await expect(connectHost({ url: remote.url, username: 'root', tls })).rejects.toThrow(TypeError);
    await expect(connectHost({ url: 'http://127.0.0.1', username: 'a', password: 'b' })).rejects.toThrow(/insecure/);
    expect(remote.received).toBe(0);
  });
});

describe('certificates', () => {
  test('a wrong fingerprint: both are named, and not a byte of ours arrives', async () => {
    const expected = selfSigned().fingerprint256;
    const error = await failure(remote.connect({ tls: { fingerprint256: expected } }));
    expect(error).toMatchObject({
      code: 'HOST_CERTIFICATE_MISMATCH',
      retryable: false,
      facts: { expected: [expected], found: remote.certificate.fingerprint256 },
    });
    expect(remote.received).toBe(0);
    expect(remote.calls).toEqual([]);
  });

  test.each([
    ['in lower case, without colons', (pin: string) => pin.replaceAll(':', '').toLowerCase()],
    ['as Node prints it', (pin: string) => pin],
  ])('a fingerprint %s is believed', async (_, write) => {
    await using host = await remote.connect({ tls: { fingerprint256: write(remote.certificate.fingerprint256) } });
    expect(host.facts.poolName).toBe('pool');
  });

  test('a pinned certificate is believed, one of several too; another one is not', async () => {
    const other = selfSigned();
    await using host = await remote.connect({ tls: { certificate: [other.cert, remote.certificate.cert] } });
    expect(host.facts.poolName).toBe('pool');
    const calls = remote.calls.length;
    expect(await failure(remote.connect({ tls: { certificate: other.cert } }))).toMatchObject({
      code: 'HOST_CERTIFICATE_MISMATCH',
    });
    expect(remote.calls).toHaveLength(calls);
  });

  test('a self-signed certificate is not believed by itself, only with insecure: true', async () => {
    const error = await failure(remote.connect({ tls: {} }));
    expect(error).toMatchObject({
      code: 'HOST_CERTIFICATE_MISMATCH',
      facts: { found: remote.certificate.fingerprint256, reason: 'DEPTH_ZERO_SELF_SIGNED_CERT' },
    });
    expect(remote.calls).toEqual([]);
    await using host = await remote.connect({ tls: {}, insecure: true });
    expect(host.facts.poolName).toBe('pool');
  });

  test('an authority is believed for the address in the certificate, and for no other', async () => {
    const { ca, leaf } = signedByAuthority();
    await using signed = await scriptedHost(leaf);
    {
      await using host = await signed.connect({ tls: { ca } });
      expect(host.facts.poolName).toBe('pool');
    }
    const calls = signed.calls.length;
    const error = await failure(signed.connect({ tls: { ca: remote.certificate.cert } }));
    expect(error).toMatchObject({ code: 'HOST_CERTIFICATE_MISMATCH' });
    expect(signed.calls).toHaveLength(calls);

    // The right authority, but 127.0.0.2 does not stand in the certificate.
    const elsewhere = await failure(signed.connect({ url: signed.url.replace('0.0.1', '0.0.2'), tls: { ca } }));
    expect(elsewhere).toMatchObject({
      code: 'HOST_CERTIFICATE_MISMATCH',
      facts: { reason: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    });
    expect(signed.calls).toHaveLength(calls);
  });

  test('a pin that is none is a TypeError', async () => {
    await expect(remote.connect({ tls: { fingerprint256: 'AB:CD' } })).rejects.toThrow(TypeError);
  });
});

describe('calls', () => {
  test('a refusal carries the host’s code and parameters, and says whether to try again', async () => {
    await using host = await remote.connect();
    remote.methods['VDI.destroy'] = () => {
      throw new Refused('VDI_IN_USE', 'OpaqueRef:12345678-vdi', 'destroy');
    };
    const error = await failure(host.call('VDI.destroy', 'OpaqueRef:12345678-vdi'));
    expect(error).toMatchObject({
      code: 'HOST_CALL_FAILED',
      xapiCode: 'VDI_IN_USE',
      xapiParams: ['OpaqueRef:12345678-vdi', 'destroy'],
      retryable: true,
    });
    expect(error.message).toContain('VDI.destroy');
    expect(error.message).not.toContain('12345678');
  });

  test('a lost session is renewed once, behind the caller’s back', async () => {
    await using host = await remote.connect();
    remote.sessions.clear();
    await expect(host.call('event.inject')).resolves.toBe('0,0');
    expect(remote.sessions.size).toBeGreaterThan(0);
  });

  test('a session that cannot be renewed: refused without its reference, and tried again with the next call', async () => {
    await using host = await remote.connect();
    const login = remote.openMethods['session.login_with_password']!;
    const [session] = remote.sessions;
    remote.sessions.clear();
    remote.openMethods['session.login_with_password'] = () => {
      throw new Refused('HOST_STILL_BOOTING');
    };
    const first = await failure(host.call('event.inject'));
    expect(first).toMatchObject({ xapiCode: 'HOST_STILL_BOOTING', retryable: true });
    const second = await failure(host.call('event.inject'));
    expect(second).toMatchObject({ xapiCode: 'HOST_STILL_BOOTING', retryable: true });
    for (const error of [first, second]) expect(seen(error)).not.toContain(session);
    remote.openMethods['session.login_with_password'] = login;
    await expect(host.call('event.inject')).resolves.toBe('0,0');
  });

  test('no error shows the session, wherever the host put it', async () => {
    await using host = await remote.connect();
    const [session = ''] = remote.sessions;
    for (const code of ['SESSION_INVALID', 'INTERNAL_ERROR', session]) {
      remote.methods['x.y'] = () => {
        throw new Refused(code, session, `session ${session} is odd`);
      };
      expect(seen(await failure(host.call('x.y', session)))).not.toContain(session.slice(10));
    }
  });
});

/** Everything that a log or a debugger would show of an error. */
function seen(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = JSON.stringify(Object.fromEntries(Object.entries(error)));
  return [error.message, error.stack, own, 'cause' in error ? seen(error.cause) : ''].join('\n');
}

describe('callAsync', () => {
  test('gives the task’s result and leaves no task', async () => {
    await using host = await remote.connect();
    remote.methods['VM.snapshot'] = (vm: string, name: string) => `${vm}-${name}`;
    await expect(host.callAsync('VM.snapshot', ['OpaqueRef:1', 'n'])).resolves.toBe('OpaqueRef:1-n');
    expect(remote.tasks.size).toBe(0);
  });

  test('a task that fails rejects with its code and leaves no task', async () => {
    await using host = await remote.connect();
    remote.methods['VM.snapshot'] = () => {
      throw new Refused('SR_BACKEND_FAILURE_109', '', 'The snapshot chain is too long', '');
    };
    const error = await failure(host.callAsync('VM.snapshot', ['OpaqueRef:1', 'n']));
    expect(error).toMatchObject({ code: 'TASK_FAILED', xapiCode: 'SR_BACKEND_FAILURE_109', retryable: false });
    expect(remote.tasks.size).toBe(0);
  });

  test('an abort cancels the task on the host, leaves none, and rejects with the reason', async () => {
    await using host = await remote.connect();
    const abort = new AbortController();
    const reason = new Error('stop');
    remote.methods['VM.snapshot'] = () => {
      abort.abort(reason);
      return new Promise(() => {});
    };
    await expect(host.callAsync('VM.snapshot', [], { signal: abort.signal })).rejects.toBe(reason);
    expect(remote.calls.map(({ method }) => method)).toContain('task.cancel');
    expect(remote.tasks.size).toBe(0);
  });

  test('a task that the host forgot is TASK_VANISHED', async () => {
    await using host = await remote.connect();
    remote.methods['VM.snapshot'] = () => {
      remote.tasks.clear();
      return new Promise(() => {});
    };
    expect(await failure(host.callAsync('VM.snapshot', []))).toMatchObject({ code: 'TASK_VANISHED' });
  });
});
