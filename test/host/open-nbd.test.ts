import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BackupError, type Clock, systemClock } from '../../src/core/index.ts';
import { memoryDisk } from '../../src/disk/index.ts';
import type { Host } from '../../src/host/index.ts';
import { type NbdServer, type NbdServerHooks, serveNbd } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';
import { selfSigned } from './support/certificate.ts';
import { Refused, type ScriptedHost, scriptedHost } from './support/scripted-host.ts';

const VDI = '1b6b1a4c-0000-4000-8000-00000000000a';
const CONTENT = patterned(1_000_448);

let remote: ScriptedHost;
let host: Host;
let server: NbdServer;
/** Sessions by which the NBD server was asked, in order. */
let asked: string[];
let hooks: NbdServerHooks;
let networks: Record<string, { uuid: string; name_label: string; bridge: string; purpose: string[]; PIFs: string[] }>;
let info: Record<string, unknown>[];
/** VBDs of the control domain on the disk. */
let attached: Set<string>;

const portOf = (nbd: NbdServer) => Number(/:(\d+)/.exec(nbd.uri)?.[1]);

async function listen(mode: 'tls' | 'plain'): Promise<void> {
  await server?.close();
  const { cert, key } = remote.certificate;
  server = await serveNbd(
    async (name) => {
      const session = /session_id=(.*)$/.exec(name)?.[1] ?? '';
      asked.push(session);
      if (!name.startsWith(`/${VDI}?`) || !remote.sessions.has(session)) return undefined;
      attached.add(`OpaqueRef:vbd-${asked.length}`);
      return memoryDisk(CONTENT);
    },
    {
      personality: 'xenserver',
      tls: { cert, key },
      mode: () => mode,
      hooks: { onStep: (...args) => hooks.onStep?.(...args) },
    },
  );
  const current = [...remote.sessions].at(-1);
  info = [
    {
      exportname: `/${VDI}?session_id=${current}`,
      address: '127.0.0.1',
      port: portOf(server),
      cert,
      subject: 'host.test',
    },
  ];
}

beforeEach(async () => {
  remote = await scriptedHost();
  asked = [];
  hooks = {};
  attached = new Set();
  networks = {
    'OpaqueRef:net': {
      uuid: 'b0d1c2e4-0000-4000-8000-000000000001',
      name_label: 'storage',
      bridge: 'xenbr1',
      purpose: ['nbd'],
      PIFs: ['OpaqueRef:pif'],
    },
    'OpaqueRef:lan': {
      uuid: 'b0d1c2e4-0000-4000-8000-000000000002',
      name_label: 'lan',
      bridge: 'xenbr0',
      purpose: [],
      PIFs: [],
    },
  };
  const pif = {
    uuid: 'p',
    host: 'OpaqueRef:host',
    network: 'OpaqueRef:net',
    IP: '127.0.0.1',
    IPv6: [],
    currently_attached: true,
  };
  Object.assign(remote.methods, {
    'VDI.get_by_uuid': () => 'OpaqueRef:vdi',
    'VDI.get_record': () => ({ uuid: VDI, virtual_size: CONTENT.byteLength }),
    'VDI.get_VBDs': () => [...attached],
    'VDI.get_nbd_info': () => info,
    'VBD.get_record': (ref: string) => {
      if (!attached.has(ref)) throw new Refused('HANDLE_INVALID', 'VBD', ref);
      return { uuid: ref, VM: 'OpaqueRef:dom0', currently_attached: true };
    },
    'VM.get_record': () => ({ uuid: 'dom0', is_control_domain: true }),
    'network.get_all_records': () => networks,
    'network.add_purpose': (ref: string, purpose: string) => networks[ref]!.purpose.push(purpose),
    'network.remove_purpose': (ref: string, purpose: string) => {
      networks[ref]!.purpose = networks[ref]!.purpose.filter((known) => known !== purpose);
      return '';
    },
    'PIF.get_all_records': () => ({ 'OpaqueRef:pif': pif }),
  });
  host = await remote.connect({ limits: { nbdConnections: 8 } });
  await listen('tls');
});
afterEach(async () => {
  attached.clear();
  await host.close();
  await server.close();
  await remote[Symbol.asyncDispose]();
});

async function failure(work: Promise<unknown>): Promise<BackupError> {
  const error = await work.then(
    () => expect.fail('expected a rejection'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BackupError);
  const [session = 'none'] = remote.sessions;
  const whole = inspect(error, { depth: 20, showHidden: true, getters: true }); // with all causes
  const shown = [(error as Error).message, (error as Error).stack, JSON.stringify(error), whole].join('\n');
  expect(shown).not.toContain(session.replace('OpaqueRef:', ''));
  return error as BackupError;
}

async function expectContent(disk: { readInto(target: Uint8Array, offset: number): Promise<void> }): Promise<void> {
  const bytes = new Uint8Array(CONTENT.byteLength - 1000);
  await disk.readInto(bytes, 1000);
  expect(Buffer.compare(bytes, CONTENT.subarray(1000))).toBe(0);
}

describe('openNbd', () => {
  test('reads the disk; closing waits until the control domain has let go', async () => {
    const disk = await host.openNbd(VDI);
    expect(disk.size).toBe(CONTENT.byteLength);
    await expectContent(disk);
    let looks = 0;
    remote.methods['VDI.get_VBDs'] = () => {
      looks++;
      if (looks === 3) attached.clear();
      return [...attached];
    };
    await disk.close();
    expect(looks).toBe(3);
  });

  test('IPv4 comes first, and an address that does not serve is passed over', async () => {
    const [good] = info;
    info = [{ ...good, address: '::1', port: 1 }, { ...good, port: 1 }, { ...good }];
    await using disk = await host.openNbd(VDI);
    await expectContent(disk);
    attached.clear();
  });

  test('an IPv6 address that the host lists first is tried last', async () => {
    const [good] = info;
    const [session] = remote.sessions;
    // The same server, by another name for its address: it sees which of the two came first.
    info = [{ ...good, address: '::ffff:127.0.0.1', exportname: `/${VDI}?session_id=other` }, { ...good }];
    const disk = await host.openNbd(VDI);
    expect(asked).toEqual([session]);
    attached.clear();
    await disk.close();
  });

  test('a network: only addresses on it', async () => {
    attached.clear();
    const disk = await host.openNbd(VDI, { network: 'storage' });
    attached.clear();
    await disk.close();
    expect(await failure(host.openNbd(VDI, { network: 'lan' }))).toMatchObject({ code: 'NBD_UNAVAILABLE' });
    expect(await failure(host.openNbd(VDI, { network: 'nowhere' }))).toMatchObject({ code: 'NOT_FOUND' });
  });

  test('exactly the certificate that the host named is believed, and the export name is not shown to another', async () => {
    info = info.map((way) => ({ ...way, cert: selfSigned().cert }));
    const error = await failure(host.openNbd(VDI, { signal: AbortSignal.timeout(20_000) }));
    expect(error.code).toMatch(/^NBD_/);
    expect(asked).toEqual([]);
  });

  test.each([
    ['no network has the purpose', () => networks['OpaqueRef:net']!.purpose.splice(0), /purpose nbd/],
    ['no address', () => info.splice(0), /address/],
    ['only without TLS', () => networks['OpaqueRef:net']!.purpose.splice(0, 1, 'insecure_nbd'), /without TLS/],
  ])('%s: NBD_UNAVAILABLE with the reason', async (_, prepare, reason) => {
    prepare();
    const error = await failure(host.openNbd(VDI));
    expect(error).toMatchObject({ code: 'NBD_UNAVAILABLE', retryable: false });
    expect(error.message).toMatch(reason);
    expect(asked).toEqual([]);
  });

  test('a host before 7.3: NBD_UNAVAILABLE', async () => {
    delete remote.methods['VDI.get_nbd_info'];
    expect(await failure(host.openNbd(VDI))).toMatchObject({ code: 'NBD_UNAVAILABLE' });
  });

  test('without TLS only where insecure: true is said', async () => {
    networks['OpaqueRef:net']!.purpose = ['insecure_nbd'];
    await listen('plain');
    const disk = await host.openNbd(VDI, { insecure: true });
    await expectContent(disk);
    attached.clear();
    await disk.close();
  });

  test('the connections are gone and the session is another one: the host is asked again', async () => {
    const retries: [number, number, string][] = [];
    const disk = await host.openNbd(VDI, {
      connections: 1,
      onRetry: (cause, attempt, waitMs) => retries.push([attempt, waitMs, (cause as BackupError).code]),
    });
    await expectContent(disk);
    const [old] = remote.sessions;
    let cut = false;
    hooks = {
      onStep: ({ kind }) => {
        if (kind !== 'request' || cut) return undefined;
        cut = true;
        remote.sessions.clear();
        return 'drop';
      },
    };
    remote.methods['VDI.get_nbd_info'] = () =>
      info.map((way) => ({ ...way, exportname: `/${VDI}?session_id=${[...remote.sessions].at(-1)}` }));
    await expectContent(disk);
    expect(asked.at(-1)).not.toBe(old);
    expect(remote.sessions).toContain(asked.at(-1));
    expect(retries).toEqual([
      [1, 0, 'NBD_CONNECTION_LOST'],
      [2, 500, 'NBD_EXPORT_CLOSED'], // with the old name
      [1, 0, 'NBD_EXPORT_CLOSED'], // with a new one
    ]);
    attached.clear();
    await disk.close();
  });

  test('when the host cannot be asked again, a later read asks once more', async () => {
    const disk = await host.openNbd(VDI, { connections: 1 });
    let drops = 1;
    hooks = { onStep: ({ kind }) => (kind === 'request' && drops-- > 0 ? 'drop' : undefined) };
    const sessions = [...remote.sessions];
    remote.sessions.clear(); // the export name in use is worth nothing any more
    remote.methods['VDI.get_nbd_info'] = () => {
      throw new Refused('HOST_OFFLINE', 'OpaqueRef:host');
    };
    const reading = disk.readInto(new Uint8Array(10), 0);
    expect(await failure(reading)).toMatchObject({ xapiCode: 'HOST_OFFLINE' });
    remote.methods['VDI.get_nbd_info'] = () =>
      info.map((way) => ({ ...way, exportname: `/${VDI}?session_id=${[...remote.sessions].at(-1)}` }));
    await expectContent(disk);
    expect(sessions).not.toContain(asked.at(-1));
    attached.clear();
    await disk.close();
  });

  test.each(['accepted', 'option', 'export'])(
    'a server that hangs up at the step %s: no error shows the session',
    async (step) => {
      hooks = { onStep: ({ kind }) => (kind === step ? 'drop' : undefined) };
      await host.close();
      const clock: Clock = {
        now: () => Date.now(),
        sleep: (ms, o) => systemClock.sleep(Math.min(ms, 20_000) / 1000, o),
      };
      host = await remote.connect({ clock });
      info = info.map((way) => ({ ...way, exportname: `/${VDI}?session_id=${[...remote.sessions].at(-1)}` }));
      const error = await failure(host.openNbd(VDI));
      expect(error.code).toMatch(/^NBD_/);
    },
  );

  test('the budget of connections is the process’s: a disk waits for the one before it', async () => {
    await host.close();
    host = await remote.connect({ limits: { nbdConnections: 1 } });
    await listen('tls');
    let open = 0;
    let most = 0;
    hooks = {
      onStep: ({ kind }) => {
        if (kind === 'accepted') most = Math.max(most, ++open);
        if (kind === 'ended') open--;
        return undefined;
      },
    };
    const first = await host.openNbd(VDI, { connections: 4 });
    await expectContent(first);
    const abort = new AbortController();
    const impatient = host.openNbd(VDI, { signal: abort.signal });
    const reason = new Error('enough');
    const rejected = expect(impatient).rejects.toBe(reason);
    const second = host.openNbd(VDI);
    abort.abort(reason);
    await rejected;
    for (let turn = 0; turn < 5; turn++) await expectContent(first);
    expect(asked).toHaveLength(1);
    await first.close();
    const disk = await second;
    await expectContent(disk);
    expect(asked).toHaveLength(2);
    expect(most).toBe(1);
    attached.clear();
    await disk.close();
    // back to what other tests expect of this address
    await (await remote.connect({ limits: { nbdConnections: 8 } })).close();
  });

  test('connections are opened one after another, whatever disk they are for: first, additional and replaced ones', async () => {
    let opening = 0;
    let mostOpening = 0;
    let drops = 3;
    hooks = {
      onStep: async ({ kind }) => {
        if (kind === 'accepted') mostOpening = Math.max(mostOpening, ++opening);
        if (kind === 'export') {
          for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
          opening--;
        }
        return kind === 'request' && drops-- > 0 ? 'drop' : undefined;
      },
    };
    const disks = await Promise.all([1, 2, 3].map(() => host.openNbd(VDI, { connections: 1 })));
    await Promise.all(disks.map(expectContent));
    expect(asked.length).toBeGreaterThan(3);
    attached.clear();
    await Promise.all(disks.map((disk) => disk.close()));
    expect(mostOpening).toBe(1);
  });

  test('closing the host closes the disk', async () => {
    const disk = await host.openNbd(VDI);
    attached.clear();
    await host.close();
    await expect(disk.readInto(new Uint8Array(10), 0)).rejects.toBeInstanceOf(Error);
  });
});

describe('networks', () => {
  test('are listed with their purposes and addresses', async () => {
    expect(await host.listNetworks()).toMatchObject([
      { name: 'storage', purposes: ['nbd'], addresses: [{ address: '127.0.0.1' }] },
      { name: 'lan', bridge: 'xenbr0', purposes: [], addresses: [] },
    ]);
  });

  test('enableNbd by uuid, name or reference; twice is once', async () => {
    await host.enableNbd('lan');
    await host.enableNbd('b0d1c2e4-0000-4000-8000-000000000002');
    await host.enableNbd('OpaqueRef:lan');
    expect(networks['OpaqueRef:lan']!.purpose).toEqual(['nbd']);
    await host.disableNbd('lan');
    await host.disableNbd('lan');
    expect(networks['OpaqueRef:lan']!.purpose).toEqual([]);
    expect(remote.calls.filter(({ method }) => method.includes('_purpose'))).toHaveLength(2);
  });

  test('enableNbd refuses where the pool offers NBD without TLS, and says where', async () => {
    networks['OpaqueRef:net']!.purpose = ['insecure_nbd'];
    const error = await failure(host.enableNbd('lan'));
    expect(error).toMatchObject({
      code: 'NBD_UNAVAILABLE',
      facts: { networks: ['b0d1c2e4-0000-4000-8000-000000000001'] },
    });
    expect(error.message).toContain('storage');
    expect(networks['OpaqueRef:lan']!.purpose).toEqual([]);
  });
});
