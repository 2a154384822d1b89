import { readFile } from 'node:fs/promises';
import type { AsyncCompleter } from 'node:readline';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { ENTRIES } from '../../src/console/public-names.ts';
import * as top from '../../src/index.ts';
import type { Simulator } from '../../src/simulator/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { typedRepl } from './support/typed-repl.ts';

const MIB = 2 ** 20;
/** They show their progress at the prompt, or are closed with it. */
const WRAPPED = ['backupVm', 'connectHost', 'copyPoint', 'restoreVm', 'runBackup', 'runRestore'];

function hostOptions({ simulator }: Pool) {
  const { url, username, password, certificate } = simulator;
  return { url, username, password, tls: { certificate } };
}

const logoutsOf = ({ log }: Simulator) => log.entries.filter(({ method }) => method === 'session.logout').length;

describe('at the prompt', () => {
  test('stands every public name of the package, of each of its entries', async () => {
    await using repl = await typedRepl();
    const { exports } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
      exports: Record<string, unknown>;
    };
    const paths = Object.keys(exports).filter((path) => path !== '.' && path !== './package.json');
    expect(Object.keys(ENTRIES).map((entry) => `./${entry}`)).toEqual(paths);
    for (const names of [top, ...Object.values(ENTRIES)]) {
      for (const [name, value] of Object.entries(names)) {
        if (WRAPPED.includes(name)) expect(repl.server.context[name], name).toHaveProperty('name', name);
        else expect(repl.server.context[name], name).toBe(value);
      }
    }
    expect(await repl.type('.names nonsense')).toBe('none\n');
    expect(await repl.type('.names backupvm')).toBe('xen-backup-sdk/backup: backupVm\n');
    expect(await repl.type('.names BackupError')).toBe('xen-backup-sdk: BackupError\n');
  });

  test('await works, a new context has the names too, and nothing is printed for undefined', async () => {
    await using repl = await typedRepl();
    expect(await repl.type('const hash = await hashDisk(memoryDisk(new Uint8Array(512)))')).toBe('');
    expect(await repl.type('hash')).toBe("'076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560'\n");
    expect(await repl.type('.clear')).toContain('Clearing context');
    expect(await repl.type('typeof hash + typeof backupVm')).toBe("'undefinedfunction'\n");
    expect(await repl.type('await memoryStore().write("a", new Uint8Array(3)).then(({ length }) => length)')).toBe(
      '3\n',
    );
  });

  test('Tab completes names of the package and members of what is open', async () => {
    await using repl = await typedRepl({ simulate: true });
    const complete = promisify(repl.server.completer as AsyncCompleter);
    expect(await complete('await hashDi')).toEqual([['hashDisk'], 'hashDi']);
    expect(await complete('const all = await host.listNet')).toEqual([['host.listNetworks'], 'host.listNet']);
    expect(await complete('await nothing')).toEqual([[], 'nothing']);
    expect(await complete('host.listNet')).toEqual([['host.listNetworks'], 'host.listNet']);
    expect(await complete('.lefto')).toEqual([['leftovers'], 'lefto']);
  });

  test('an error of the library is its code and message, and `_error` has the rest', async () => {
    await using repl = await typedRepl({ simulate: true });
    expect(await repl.type('await host.getVm("wev")')).toBe('Uncaught BackupError NOT_FOUND: no VM "wev"\n');
    expect(await repl.type('_error.code')).toBe("'NOT_FOUND'\n");
    expect(await repl.type('.disks wev')).toBe('BackupError NOT_FOUND: no VM "wev"\n');
    expect(await repl.type('.disks')).toBe('.disks <name or uuid of a VM>\n');
    expect(await repl.type('1 + 1')).toBe('2\n');
  });

  test('commands take the host that was connected there, which is closed in the end', async () => {
    await using pool = await startPool();
    await pool.simulator.createVm({ name: 'web' });
    const repl = await typedRepl();
    expect(await repl.type('.vms')).toBe('there is no `host` yet: host = await connectHost({ … })\n');
    Object.assign(repl.server.context, { options: hostOptions(pool) });
    expect(await repl.type('const host = await connectHost(options)')).toBe('');
    expect(await repl.type('.vms')).toMatch(/^name_label +power_state +uuid\n[- ]+\nweb +Running +\S{36}\n$/);
    const before = logoutsOf(pool.simulator);
    await repl.close();
    expect(logoutsOf(pool.simulator)).toBe(before + 1);
  });

  test('no password is printed, whatever is looked at', async () => {
    await using pool = await startPool({ password: 'correct horse' });
    await using repl = await typedRepl({ host: hostOptions(pool), repository: pool.folder });
    expect(await repl.type('host')).toBe(
      `Host { label: '${pool.host.label}', pool: 'simulated pool', product: 'XCP-ng 8.3.0' }\n`,
    );
    for (const line of [
      'repository',
      '[host]',
      '({ host })',
      'host.facts',
      '.networks',
      'await host.listRecords("host")',
    ]) {
      expect(await repl.type(line)).not.toBe('');
    }
    expect(repl.greeting).toContain(`host        simulated pool, XCP-ng 8.3.0, at ${pool.host.label}\n`);
    expect(repl.greeting).toContain(`repository  ${pool.folder}\n`);
    expect(repl.printed).not.toMatch(/correct horse|OpaqueRef:(?!<|NULL)/);
  });
});

test.each([
  ['a release without increments', { profile: 'xenserver-7.2' }, 'image'],
  ['one that may not use them', { profile: 'xenserver-8', restrictions: ['restrict_cbt'] }, 'changed-blocks'],
  ['several hosts', { hosts: 3 }, 'changed-blocks'],
] as const)('the simulator plays %s, and its VMs can be backed up', async (_name, simulate, strategy) => {
  await using repl = await typedRepl({ simulate });
  Object.assign(repl.server.context, { options: { vm: 'db', strategy, onProgress: () => {} } });
  expect(await repl.type('await backupVm(host, repository, options)')).toMatch(/^manifest\.type +full$/m);
  expect(await repl.type('.points db')).toMatch(/^\S+-full-\S+ +full +\S+$/m);
});

describe('lines that come all at once', () => {
  test('are taken one after another, also behind an await and a command', async () => {
    await using repl = await typedRepl({ simulate: true });
    const wait = 'await new Promise((done) => setImmediate(() => setTimeout(done, 5)))';
    repl.press(
      `order = []\n${wait}; order.push(1)\n.vms\norder.push(2)\nawait host.getVm("nobody")\norder.push(3)\norder\n`,
    );
    await repl.until('[ 1, 2, 3 ]\n');
    expect(repl.printed.indexOf('name_label')).toBeLessThan(repl.printed.indexOf('nobody'));
    repl.hangUp();
    await repl.closed;
  });
});

describe('the session ends', () => {
  test.each([
    ['with .exit', (press: (keys: string) => void) => press('.exit\n')],
    ['with the end of the input', (_: unknown, hangUp: () => void) => hangUp()],
    ['with its signal', (_: unknown, __: unknown, stop: AbortController) => stop.abort()],
  ])('%s, and the host, the store and the simulator with it', async (_name, how) => {
    const stop = new AbortController();
    const repl = await typedRepl({ simulate: true, signal: stop.signal });
    const { host, simulator } = repl.server.context as unknown as Pool;
    how(repl.press, repl.hangUp, stop);
    await repl.closed;
    await expect(host.listVms()).rejects.toMatchObject({ name: 'HostError' });
    expect(logoutsOf(simulator)).toBe(1);
    await expect(fetch(simulator.url)).rejects.toThrow(); // nobody is there
  });

  test('and what runs is stopped, and takes back what it made', async () => {
    await using pool = await startPool();
    await pool.simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }] });
    const { uuid } = await pool.host.getVm('web');
    await pool.simulator.writeDisk(uuid, '0', 0, new Uint8Array(4 * MIB).fill(7));
    pool.simulator.fault('stall', { after: MIB, path: '/export_raw_vdi' });
    const repl = await typedRepl({ host: hostOptions(pool), repository: pool.folder });
    repl.press('run = backupVm(host, repository, { vm: "web" }); 0\n');
    await repl.until('full, 8.0 MiB');
    repl.press('.exit\n');
    await repl.closed;
    expect(repl.printed).toContain('waiting until what was under way has taken back what it made');
    expect(repl.printed).toContain('RunError ABORTED: ');
    expect(await findLeftovers(pool.host)).toEqual([]);
    const snapshots = (await pool.host.listRecords('VM')).filter((vm) => vm.is_a_snapshot);
    expect(snapshots).toEqual([]);
  });

  test('host and simulator together are refused, and so is a signal that has struck', async () => {
    const host = { url: 'https://127.0.0.1:1', username: 'root', password: 'x' };
    await expect(typedRepl({ host, simulate: true })).rejects.toThrow('exclude each other');
    await expect(typedRepl({ signal: AbortSignal.abort('over') })).rejects.toBe('over');
  });

  test('what was opened is closed again where the rest cannot be', async () => {
    await using pool = await startPool();
    const before = logoutsOf(pool.simulator);
    const file = new URL(import.meta.url).pathname;
    await expect(typedRepl({ host: hostOptions(pool), repository: file })).rejects.toMatchObject({ code: 'STORE_IO' });
    expect(logoutsOf(pool.simulator)).toBe(before + 1);
  });
});

describe('on a terminal', () => {
  test('Ctrl-C stops what runs, which takes back what it made, and the prompt goes on', async () => {
    await using pool = await startPool();
    await pool.simulator.createVm({ name: 'web', disks: [{ size: 8 * MIB }] });
    const { uuid } = await pool.host.getVm('web');
    await pool.simulator.writeDisk(uuid, '0', 0, new Uint8Array(4 * MIB).fill(7));
    pool.simulator.fault('stall', { after: MIB, path: '/export_raw_vdi' });
    await using repl = await typedRepl({
      ...{ host: hostOptions(pool), repository: pool.folder, terminal: true },
      historyFile: false,
    });
    repl.press('await backupVm(host, repository, { vm: "web" })\n');
    await repl.until('full, 8.0 MiB');
    repl.press('\x03');
    await repl.until('interrupted with Ctrl-C');
    await repl.until('RunError ABORTED: ');
    repl.press('6 * 7\n');
    await repl.until('42');
    expect(await findLeftovers(pool.host)).toEqual([]);
  });
});
