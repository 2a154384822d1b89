import { expect, test, vi } from 'vitest';
import { createExchangeLog, type HostExchange } from '../../src/host/exchange-log.ts';
import { Refused, scriptedHost } from './support/scripted-host.ts';

const SESSION = 'OpaqueRef:0b5c3b1e-session';

function shownOf(method: string, args: unknown[], result: unknown): string {
  const seen: HostExchange[] = [];
  createExchangeLog((exchange) => seen.push(exchange)).call(method, [SESSION, ...args], 0, { result });
  expect(seen).toHaveLength(1);
  return JSON.stringify(seen);
}

test('a listener that throws changes no call: the host is asked once, its answer counts, and Node warns once', async () => {
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    await using remote = await scriptedHost();
    let made = 0;
    let told = 0;
    remote.methods['VM.snapshot'] = () => `OpaqueRef:snapshot-${++made}`;
    remote.methods['VM.refuse'] = () => {
      throw new Refused('VM_BAD_POWER_STATE', 'OpaqueRef:vm');
    };
    await using host = await remote.connect({
      onExchange: (exchange) => {
        if (exchange.kind !== 'call' || !exchange.method.startsWith('VM.')) return;
        told++;
        throw new Error('the disk with the transcript is full');
      },
    });
    expect(await host.call('VM.snapshot', 'OpaqueRef:vm', 'name')).toBe('OpaqueRef:snapshot-1');
    await expect(host.call('VM.refuse', 'OpaqueRef:vm')).rejects.toMatchObject({ xapiCode: 'VM_BAD_POWER_STATE' });
    expect(made).toBe(1);
    expect(told).toBe(1);
    expect(warn).toHaveBeenCalledOnce();
    expect(String(warn.mock.calls[0]?.[0])).toContain('the disk with the transcript is full');
  } finally {
    warn.mockRestore();
  }
});

test.each([
  ['VTPM.get_contents', [], 'hush'],
  ['Async.VTPM.set_contents', ['OpaqueRef:vtpm', 'hush'], 'OpaqueRef:task'],
  ['VM.add_to_NVRAM', ['OpaqueRef:vm', 'EFI-variables', 'hush'], ''],
  ['VM.get_NVRAM', ['OpaqueRef:vm'], { 'EFI-variables': 'hush' }],
  ['VM.get_record', ['OpaqueRef:vm'], { uuid: 'v', NVRAM: { 'EFI-variables': 'hush' } }],
  ['user.change_password', ['old hush', 'hush'], ''],
  ['Async.pool.join', ['192.0.2.1', 'root', 'hush'], ''],
  ['host.enable_external_auth', ['OpaqueRef:host', { user: 'x', pass: 'hush' }], ''],
  ['PBD.get_record', ['OpaqueRef:pbd'], { device_config: { cifspassword: 'hush', chappassword: 'hush' } }],
  ['PBD.get_record', ['OpaqueRef:pbd'], { device_config: { password_secret: 'hush' } }],
  ['task.get_record', ['OpaqueRef:task'], { status: 'success', result: '<value>hush</value>' }],
  ['task.get_all_records', [], { 'OpaqueRef:1': { result: '<value>hush</value>' } }],
  ['event.from', [['task'], '', 1], { events: [{ class: 'task', snapshot: { result: '<value>hush</value>' } }] }],
])('%s: what is secret is left out, whatever it came in', (method, args, result) => {
  expect(shownOf(method, args, result)).not.toContain('hush');
});

test('a task’s result of references stays, under the numbers of the transcript', () => {
  const one = { result: '<value>OpaqueRef:abc</value>' };
  const list = { result: '<value><array><data><value>OpaqueRef:abc</value></data></array></value>' };
  expect(shownOf('task.get_record', ['OpaqueRef:task'], one)).toContain('<value>OpaqueRef:2</value>');
  expect(shownOf('task.get_record', ['OpaqueRef:task'], list)).toContain('<data><value>OpaqueRef:2</value></data>');
  expect(shownOf('task.get_record', ['OpaqueRef:task'], { result: '' })).toContain('"result":""');
});
