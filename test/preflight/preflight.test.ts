import { describe, expect, test } from 'vitest';
import { systemClock } from '../../src/core/index.ts';
import { NbdError } from '../../src/nbd-protocol/index.ts';
import { type Finding, type FindingId, preflight } from '../../src/preflight/index.ts';
import type { NewVm } from '../../src/simulator/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import { abandonedSnapshot, MIB, twoDiskVm } from '../snapshot/support.ts';
import { type Pool, startPool } from '../support/pool.ts';

const GIB = 2 ** 30;

const idsOf = (findings: readonly Finding[], severity?: Finding['severity']) =>
  findings.filter((finding) => severity === undefined || finding.severity === severity).map(({ id }) => id);

function only(findings: readonly Finding[], id: FindingId): Finding {
  const found = findings.filter((finding) => finding.id === id);
  expect(found, id).toHaveLength(1);
  return found[0]!;
}

/** The findings about a VM that is made like this. */
async function about(pool: Pool, vm: NewVm): Promise<Finding[]> {
  const made = await pool.simulator.createVm(vm);
  return preflight(pool.host, { vms: [made.uuid] });
}

describe('a pool in which all is well', () => {
  test('everything is ok, and said; nothing is changed', async () => {
    await using pool = await startPool();
    const vm = await twoDiskVm(pool);
    pool.simulator.log.clear();
    const findings = await preflight(pool.host, { vms: [vm.uuid] });
    expect(idsOf(findings.filter(({ severity }) => severity !== 'ok'))).toEqual([]);
    expect(idsOf(findings)).toEqual([
      ...['pool.version', 'pool.licence', 'nbd.session', 'nbd.slots', 'host.certificate', 'host.clock'],
      ...['sr.room', 'vm.tools', 'pool.leftovers'],
    ]);
    const calls = pool.simulator.log.entries.filter(({ kind }) => kind === 'call').map(({ method }) => method);
    expect(calls.filter((method) => !/\.get_|^event\./.test(method))).toEqual([]);
    expect(JSON.parse(JSON.stringify(findings))).toEqual(findings);
  });

  test('without VMs the pool and its hosts are looked at; with fullOnly NBD is not tried', async () => {
    await using pool = await startPool({ nbd: false, restrictions: ['restrict_cbt'] });
    expect(idsOf(await preflight(pool.host), 'error')).toEqual(['pool.licence', 'nbd.no-network']);
    const findings = await preflight(pool.host, { fullOnly: true });
    expect(idsOf(findings, 'error')).toEqual([]);
    expect(idsOf(findings, 'info')).toEqual(['pool.licence', 'nbd.no-network']);
    expect(idsOf(findings)).not.toContain('nbd.slots');
  });
});

describe('one finding never stops the others', () => {
  test('whatever call fails', { timeout: 60_000 }, async () => {
    await using pool = await startPool({ nbd: true });
    const vm = await twoDiskVm(pool);
    pool.simulator.log.clear();
    const good = await preflight(pool.host, { vms: [vm.uuid] });
    const asked = pool.simulator.log.entries.filter(({ kind }) => kind === 'call').map(({ method }) => method);
    // The watch over tasks goes on in the background, whatever is asked.
    const methods = [...new Set(asked)].filter((method) => method !== 'event.from');
    expect(methods.length).toBeGreaterThan(12);
    for (const method of methods) {
      const disarm = pool.simulator.fault('call-error', { method, code: 'INTERNAL_ERROR', params: ['no'], times: 1e6 });
      const findings = await preflight(pool.host, { vms: [vm.uuid] });
      disarm();
      const failed = findings.filter(({ id }) => id === 'check.failed' || id === 'nbd.failed');
      expect(failed, method).not.toEqual([]);
      for (const { evidence } of failed)
        expect(JSON.stringify(evidence), method).toMatch(/INTERNAL_ERROR|HOST_CALL_FAILED/);
      const kept = findings.filter(({ severity }) => severity === 'ok').length;
      expect(kept, `${method}: ${kept} of ${good.length}`).toBeGreaterThanOrEqual(2);
    }
  });

  test('a VM that does not exist, beside one that does', async () => {
    await using pool = await startPool();
    await twoDiskVm(pool);
    const findings = await preflight(pool.host, { vms: ['nobody', 'web'] });
    expect(only(findings, 'vm.missing')).toMatchObject({ severity: 'error', subject: { name: 'nobody' } });
    expect(idsOf(findings)).toContain('vm.tools');
  });

  test('an abort does', async () => {
    await using pool = await startPool();
    const stop = new AbortController();
    const host = {
      ...pool.host,
      tryNbd: () => {
        stop.abort(new Error('enough'));
        return Promise.reject(new Error('because of that'));
      },
    };
    await expect(preflight(host, { signal: stop.signal })).rejects.toThrow('enough');
    await expect(preflight(pool.host, { signal: stop.signal })).rejects.toThrow('enough');
  });
});

describe('NBD servers', () => {
  test('one that turns everybody away', async () => {
    await using pool = await startPool();
    await twoDiskVm(pool);
    pool.simulator.fault('nbd-refuse', {});
    const finding = only(await preflight(pool.host), 'nbd.turned-away');
    expect(finding).toMatchObject({ severity: 'error', evidence: { address: '127.0.0.1', code: 'NBD_NO_GREETING' } });
  });

  test.each([
    ['tls', 'NBD_CERTIFICATE_MISMATCH', 'nbd.tls-failed'],
    ['export', 'NBD_EXPORT_CLOSED', 'nbd.failed'],
  ] as const)('one that fails at the stage %s', async (stage, code, id) => {
    await using pool = await startPool();
    const peer = { server: '127.0.0.1:10809', exportName: '/x?session_id=OpaqueRef:secret' };
    const host = { ...pool.host, tryNbd: () => Promise.reject(new NbdError(code, stage, peer, 'no')) };
    const finding = only(await preflight(host), id);
    expect(finding).toMatchObject({ evidence: { stage, code }, fix: { words: expect.any(String) } });
    expect(JSON.stringify(finding)).not.toContain('secret');
  });

  test('the chosen network: unknown, without the purpose, without an address', async () => {
    await using pool = await startPool();
    const [, other] = await pool.host.listNetworks();
    const unknown = only(await preflight(pool.host, { network: 'nowhere' }), 'nbd.no-network');
    expect(unknown).toMatchObject({ subject: { kind: 'pool' }, evidence: { wanted: 'nowhere' } });
    const without = only(await preflight(pool.host, { network: other!.uuid }), 'nbd.no-network');
    expect(without.subject).toMatchObject({ kind: 'network', uuid: other!.uuid });
    await without.fix!.apply!();
    expect((await pool.host.listNetworks())[1]!.purposes).toEqual(['nbd']);
  });

  test('each host at each of its addresses; hosts without one are told', async () => {
    await using pool = await startPool();
    await twoDiskVm(pool);
    const { world, refs } = pool.simulator;
    const template = world.getObject('host', refs.host);
    const addHost = (name_label: string) => {
      const { uuid: _uuid, PIFs: _pifs, PBDs: _pbds, ...fields } = template;
      return world.addObject('host', { ...fields, name_label });
    };
    const second = addHost('second');
    addHost('third');
    world.addObject('PIF', {
      host: second,
      network: refs.network,
      IP: '127.0.0.2',
      IPv6: ['fd00::2/64'],
      currently_attached: true,
    });
    const findings = await preflight(pool.host);
    const nbd = findings.filter(({ id }) => /^nbd\.(session|no-address|port-closed)/.test(id));
    expect(nbd.map(({ id, subject, evidence }) => [id, subject.name, evidence['address']])).toEqual([
      ['nbd.session', 'simulated-host', '127.0.0.1'],
      ['nbd.port-closed', 'second', '127.0.0.2'], // IPv4 only; and no storage of it tells a port: NBD's own is tried
      ['nbd.no-address', 'third', undefined],
    ]);
    expect(findings.filter(({ id }) => id === 'host.certificate')).toHaveLength(3);
    const chosen = await preflight(pool.host, { hosts: ['third', 'simulated-host'] });
    expect(chosen.filter(({ id }) => id === 'host.clock').map(({ subject }) => subject.name)).toEqual([
      'third',
      'simulated-host',
    ]);
  });

  test('many disks attached to the control domain', async () => {
    await using pool = await startPool();
    const vm = await pool.simulator.createVm({ disks: Array.from({ length: 8 }, () => ({ size: 4 * MIB })) });
    const { controlDomain } = pool.simulator.refs;
    for (const { vdi } of vm.disks) {
      pool.simulator.world.addObject('VBD', { VM: controlDomain, VDI: vdi, type: 'Disk', currently_attached: true });
    }
    const finding = only(await preflight(pool.host), 'nbd.slots');
    expect(finding).toMatchObject({ severity: 'warning', evidence: { attached: 8, limit: 16 } });
  });
});

test.each([
  [-120_000, 'ahead of'],
  [120_000, 'behind'],
])('a clock that is off by %d ms', async (off, words) => {
  await using pool = await startPool({ nbd: false });
  const clock = { ...systemClock, now: () => Date.now() + off };
  const finding = only(await preflight(pool.host, { clock }), 'host.clock');
  expect(finding).toMatchObject({ severity: 'warning', message: expect.stringContaining(words) });
  expect(Math.abs(Number(finding.evidence['skewMs']) + off)).toBeLessThan(5000);
});

test('a certificate that expires soon', async () => {
  await using pool = await startPool({ nbd: false });
  const clock = { ...systemClock, now: () => Date.now() + (10 * 365 - 20) * 24 * 3600_000 };
  expect(only(await preflight(pool.host, { clock }), 'host.certificate')).toMatchObject({
    severity: 'warning',
    evidence: { problem: 'expires-soon', keyType: 'rsa', keyBits: 2048 },
  });
});

describe('storage', () => {
  test('LVM: a snapshot may need the whole size again', async () => {
    await using pool = await startPool({ nbd: false });
    const { world, refs } = pool.simulator;
    const sr = world.addObject('SR', { name_label: 'iscsi', type: 'lvmoiscsi', physical_size: 100 * GIB });
    const pbd = world.addObject('PBD', { host: refs.host, SR: sr, currently_attached: true });
    const disks = [
      { size: 40 * GIB, sr },
      { size: 20 * GIB, sr },
    ];
    const [running, halted] = [
      await pool.simulator.createVm({ disks }),
      await pool.simulator.createVm({ disks, powerState: 'Halted' }),
    ];
    const look = async (vm: { uuid: string }, free: number, allocation = 'thick') => {
      world.updateObject('SR', sr, { physical_utilisation: 100 * GIB - free, sm_config: { allocation } });
      return only(await preflight(pool.host, { vms: [vm.uuid] }), 'sr.room').severity;
    };
    for (const vm of [running, halted]) {
      expect(await look(vm, 61 * GIB)).toBe('ok');
      expect(await look(vm, 60 * GIB)).toBe('warning'); // a VHD has tables, too
      expect(await look(vm, 24 * MIB)).toBe('warning');
      expect(await look(vm, 24 * MIB - 1)).toBe('error');
    }
    expect(await look(running, 60 * GIB, 'thin')).toBe('warning'); // attached disks are thick
    expect(await look(halted, 24 * MIB, 'thin')).toBe('ok');
    expect(await look(halted, 24 * MIB - 1, 'thin')).toBe('error');
    world.updateObject('PBD', pbd, { currently_attached: false });
    const findings = await preflight(pool.host, { vms: [running.uuid] });
    expect(only(findings, 'sr.detached')).toMatchObject({ severity: 'error' });
  });

  test('files: what guests write needs room', async () => {
    await using pool = await startPool({ nbd: false });
    const { world, refs } = pool.simulator;
    const vm = await twoDiskVm(pool);
    const { physical_size } = world.getObject('SR', refs.defaultSr);
    for (const [part, severity] of [
      [0.94, 'ok'],
      [0.96, 'warning'],
    ] as const) {
      world.updateObject('SR', refs.defaultSr, { physical_utilisation: Math.round(physical_size * part) });
      expect(only(await preflight(pool.host, { vms: [vm.uuid] }), 'sr.room').severity).toBe(severity);
    }
  });

  test('a long chain of nodes', async () => {
    await using pool = await startPool({ nbd: false });
    const { world } = pool.simulator;
    const vm = await pool.simulator.createVm({ disks: [{ size: 4 * MIB }] });
    const [{ vdi } = { vdi: '' }] = vm.disks;
    const { SR } = world.getObject('VDI', vdi);
    const depths: (string | undefined)[] = [];
    for (let parent = '', depth = 1; depth < 30; depth++) {
      const node = world.addObject('VDI', {
        SR,
        managed: false,
        sm_config: parent === '' ? {} : { 'vhd-parent': parent },
      });
      parent = world.getObject('VDI', node).uuid;
      world.updateObject('VDI', vdi, { sm_config: { 'vhd-parent': parent } });
      if (![18, 19, 28, 29].includes(depth)) continue;
      const findings = await preflight(pool.host, { vms: [vm.uuid] });
      depths.push(findings.find(({ id }) => id === 'disk.chain')?.severity);
    }
    expect(depths).toEqual([undefined, 'warning', 'warning', 'error']); // 19, 20, 29 and 30 nodes
  });
});

describe('VMs and disks', () => {
  test.each<[FindingId, Finding['severity'], NewVm]>([
    ['vm.refused', 'error', { powerState: 'Halted', record: { blocked_operations: { snapshot: 'by me' } } }],
    ['vm.usb', 'error', { record: { VUSBs: ['OpaqueRef:usb'] } }],
    ['vm.suspended', 'info', { powerState: 'Suspended' }],
    ['vm.tools', 'info', { guestTools: 'none' }],
    ['disk.shared', 'error', { disks: [{ size: 4 * MIB, record: { sharable: true } }] }],
    ['disk.resets', 'error', { disks: [{ size: 4 * MIB, record: { on_boot: 'reset' } }] }],
    ['disk.no-snapshot', 'error', { disks: [{ size: 4 * MIB, record: { sm_config: { type: 'raw' } } }] }],
  ])('%s (%s)', async (id, severity, vm) => {
    await using pool = await startPool({ nbd: false });
    expect(only(await about(pool, vm), id)).toMatchObject({ severity, subject: { uuid: expect.stringMatching(/-/) } });
  });

  test('a size that is no multiple of a sector, one beyond 2040 GiB', async () => {
    await using pool = await startPool({ nbd: false });
    const vm = await pool.simulator.createVm({ disks: [{ size: 4 * MIB }, { size: 4 * MIB }] });
    const { world } = pool.simulator;
    world.updateObject('VDI', vm.disks[0]!.vdi, { virtual_size: 4 * MIB + 1 });
    world.updateObject('VDI', vm.disks[1]!.vdi, { virtual_size: 2040 * GIB + 2 * MIB });
    const findings = await preflight(pool.host, { vms: [vm.uuid] });
    expect(only(findings, 'disk.size').subject.uuid).toBe(vm.disks[0]!.uuid);
    expect(only(findings, 'disk.large').subject.uuid).toBe(vm.disks[1]!.uuid);
  });

  test('storage that cannot snapshot, storage that cannot track', async () => {
    await using pool = await startPool({ nbd: false });
    const vm = await pool.simulator.createVm({ disks: [{ size: 4 * MIB }] });
    const { world } = pool.simulator;
    const [, driver] = [...world.objects('SM')].find(([, { type }]) => type === 'ext') ?? [];
    const [ref] = [...world.objects('SM')].find(([, { type }]) => type === 'ext')!;
    const { VDI_CONFIG_CBT: _cbt, ...untracked } = driver!.features;
    world.updateObject('SM', ref, { features: untracked });
    expect(only(await preflight(pool.host, { vms: [vm.uuid] }), 'disk.no-tracking').severity).toBe('warning');
    const { VDI_SNAPSHOT: _snapshot, ...neither } = untracked;
    world.updateObject('SM', ref, { features: neither });
    expect(only(await preflight(pool.host, { vms: [vm.uuid] }), 'disk.no-snapshot').severity).toBe('error');
  });
});

test('what killed runs left is found, and removed when that is asked for', async () => {
  await using pool = await startPool({ nbd: false });
  const vm = await twoDiskVm(pool);
  await abandonedSnapshot(pool, vm);
  const finding = only(await preflight(pool.host), 'pool.leftovers');
  expect(finding).toMatchObject({ severity: 'warning', evidence: { leftovers: [{ kind: 'snapshot' }] } });
  expect(finding.message).toMatch(/^runs that were killed have left the snapshot \S.* \([0-9a-f-]{36}\)$/);
  pool.simulator.fault('call-error', { method: 'VM.destroy', code: 'INTERNAL_ERROR', params: ['no'] });
  await expect(finding.fix!.apply!()).rejects.toMatchObject({ code: 'CLEAN_UP_INCOMPLETE' });
  await finding.fix!.apply!();
  expect(await findLeftovers(pool.host)).toEqual([]);
  expect(only(await preflight(pool.host), 'pool.leftovers').severity).toBe('ok');
});
