import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Host } from '../../src/host/index.ts';
import { Refused, type ScriptedHost, scriptedHost } from './support/scripted-host.ts';

type Fields = Record<string, unknown>;

let remote: ScriptedHost;
let host: Host;
let objects: Record<string, Record<string, Fields>>;

const uuid = (last: number) => `5e0c1a4c-0000-4000-8000-${String(last).padStart(12, '0')}`;
const plain = { is_a_template: false, is_a_snapshot: false, is_control_domain: false, VBDs: [] };

beforeEach(async () => {
  remote = await scriptedHost();
  objects = {
    VM: {
      'OpaqueRef:web': {
        ...plain,
        uuid: uuid(1),
        name_label: 'web',
        VBDs: ['OpaqueRef:b10', 'OpaqueRef:cd', 'OpaqueRef:b2', 'OpaqueRef:none'],
      },
      'OpaqueRef:db': { ...plain, uuid: uuid(2), name_label: 'twin' },
      'OpaqueRef:db2': { ...plain, uuid: uuid(3), name_label: 'twin' },
      'OpaqueRef:template': { ...plain, uuid: uuid(4), name_label: 'Debian', is_a_template: true },
      'OpaqueRef:snapshot': { ...plain, uuid: uuid(5), name_label: 'web', is_a_template: true, is_a_snapshot: true },
      'OpaqueRef:dom0': { ...plain, uuid: uuid(6), name_label: 'dom0', is_control_domain: true },
    },
    VBD: {
      'OpaqueRef:b10': { uuid: uuid(10), type: 'Disk', empty: false, VDI: 'OpaqueRef:d10', userdevice: '10' },
      'OpaqueRef:b2': { uuid: uuid(11), type: 'Disk', empty: false, VDI: 'OpaqueRef:d2', userdevice: '2' },
      'OpaqueRef:cd': { uuid: uuid(12), type: 'CD', empty: false, VDI: 'OpaqueRef:iso', userdevice: '3' },
      'OpaqueRef:none': { uuid: uuid(13), type: 'Disk', empty: false, VDI: 'OpaqueRef:NULL', userdevice: '4' },
    },
    VDI: {
      'OpaqueRef:d10': { uuid: uuid(20), SR: 'OpaqueRef:sr', virtual_size: 10 },
      'OpaqueRef:d2': { uuid: uuid(21), SR: 'OpaqueRef:sr', virtual_size: '2199023255552', physical_utilisation: -1 },
      'OpaqueRef:odd': { uuid: uuid(22), SR: 'OpaqueRef:sr', virtual_size: 2 ** 60 },
    },
    SR: { 'OpaqueRef:sr': { uuid: uuid(30), name_label: 'local' } },
  };
  for (const [type, records] of Object.entries(objects)) {
    remote.methods[`${type}.get_all_records`] = () => records;
    remote.methods[`${type}.get_record`] = (ref: string) => {
      const found = records[ref];
      if (found === undefined) throw new Refused('HANDLE_INVALID', type, ref);
      return found;
    };
    remote.methods[`${type}.get_by_uuid`] = (wanted: string) => {
      const found = Object.entries(records).find(([, record]) => record['uuid'] === wanted);
      if (found === undefined) throw new Refused('UUID_INVALID', type, wanted);
      return found[0];
    };
  }
  host = await remote.connect();
});
afterEach(async () => {
  await host.close();
  await remote[Symbol.asyncDispose]();
});

test('VMs proper: no templates, snapshots, control domains', async () => {
  expect((await host.listVms()).map(({ ref }) => ref)).toEqual(['OpaqueRef:web', 'OpaqueRef:db', 'OpaqueRef:db2']);
});

test('a VM by uuid or by a name that only one VM has', async () => {
  expect(await host.getVm(uuid(5))).toMatchObject({ ref: 'OpaqueRef:snapshot' });
  expect(await host.getVm('web')).toMatchObject({ ref: 'OpaqueRef:web', uuid: uuid(1) });
});

test('NOT_FOUND names the candidates', async () => {
  await expect(host.getVm('twin')).rejects.toMatchObject({
    code: 'NOT_FOUND',
    facts: { candidates: [{ uuid: uuid(2) }, { uuid: uuid(3) }] },
  });
  await expect(host.getVm('WE')).rejects.toMatchObject({ code: 'NOT_FOUND', facts: { candidates: [{ name: 'web' }] } });
  await expect(host.getVm(uuid(99))).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('disks in device order, by number, without CDs and empty drives; sizes as numbers', async () => {
  const disks = await host.listDisks(uuid(1));
  expect(disks.map(({ vbd, vdi, sr }) => [vbd.userdevice, vdi.virtual_size, sr.name_label])).toEqual([
    ['2', 2 ** 41, 'local'],
    ['10', 10, 'local'],
  ]);
});

test('records: by uuid or reference; missing ones are an error, or undefined', async () => {
  expect(await host.getRecord('VDI', uuid(20))).toEqual(await host.getRecord('VDI', 'OpaqueRef:d10'));
  await expect(host.getRecord('VDI', uuid(99))).rejects.toMatchObject({ xapiCode: 'UUID_INVALID' });
  await expect(host.getRecord('VDI', 'OpaqueRef:99')).rejects.toMatchObject({ xapiCode: 'HANDLE_INVALID' });
  expect(await host.findRecord('VDI', uuid(99))).toBeUndefined();
  expect(await host.findRecord('VDI', 'OpaqueRef:99')).toBeUndefined();
  delete remote.methods['SR.get_record'];
  await expect(host.findRecord('SR', 'OpaqueRef:sr')).rejects.toMatchObject({ xapiCode: 'MESSAGE_METHOD_UNKNOWN' });
});

test('a size that is none is HOST_ANSWER_INVALID', async () => {
  await expect(host.getRecord('VDI', 'OpaqueRef:odd')).rejects.toMatchObject({ code: 'HOST_ANSWER_INVALID' });
  objects['VM']!['OpaqueRef:db']!['uuid'] = 7;
  await expect(host.listVms()).rejects.toMatchObject({ code: 'HOST_ANSWER_INVALID' });
});

test('changed blocks are asked for in a task, from the older to the newer, with the newer one’s size', async () => {
  let asked: string[] = [];
  remote.methods['VDI.list_changed_blocks'] = (...refs: string[]) => {
    asked = refs;
    return 'gA==';
  };
  expect(await host.listChangedBlocks(uuid(20), uuid(21))).toEqual({ bitmap: 'gA==', diskSize: 2 ** 41 });
  expect(asked).toEqual(['OpaqueRef:d10', 'OpaqueRef:d2']);
  expect(remote.calls.map(({ method }) => method)).toContain('Async.VDI.list_changed_blocks');
  expect(remote.tasks.size).toBe(0);
});

test('an answer about changed blocks that is no text is HOST_ANSWER_INVALID', async () => {
  remote.methods['VDI.list_changed_blocks'] = () => '<array><data><value>gA==</value></data></array>';
  const asking = host.listChangedBlocks(uuid(20), uuid(21));
  await expect(asking).rejects.toMatchObject({ code: 'HOST_ANSWER_INVALID' });
});
