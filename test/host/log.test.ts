import { format } from 'node:util';
import createDebug from 'debug';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HEAD_200, Refused, scriptedHost } from './support/scripted-host.ts';

const lines: string[] = [];
const print = createDebug.log;

beforeEach(() => {
  lines.length = 0;
  createDebug.log = (...parts: unknown[]) => lines.push(format(...parts));
  createDebug.enable('*');
});
afterEach(() => {
  createDebug.disable();
  createDebug.log = print;
});

test('with every switch on, the log shows neither session nor password', async () => {
  await using remote = await scriptedHost();
  const known = new Set<string>();
  const host = await remote.connect({ timeouts: { cleanUpMs: 200 } });
  for (const session of remote.sessions) known.add(session.replace('OpaqueRef:', ''));
  Object.assign(remote.methods, {
    'VDI.get_record': () => ({ uuid: 'vdi', virtual_size: 10 }),
    'VDI.get_VBDs': () => [],
    'x.y': (session: string) => {
      throw new Refused('INTERNAL_ERROR', session);
    },
    'event.inject': (...args: string[]) => {
      throw new Refused('INTERNAL_ERROR', ...args);
    },
  });
  remote.handlers['/export_raw_vdi'] = ({ socket }) => void socket.end(`${HEAD_200}short`);
  const [session] = remote.sessions;
  await expect(host.call('x.y', session)).rejects.toThrow();
  const { chunks } = await host.exportDisk('OpaqueRef:vdi');
  await expect(chunks[Symbol.asyncIterator]().next()).resolves.toMatchObject({ done: false });
  remote.sessions.clear();
  await host.call('pool.get_all_records');
  for (const renewed of remote.sessions) known.add(renewed.replace('OpaqueRef:', ''));
  await host.close();

  const shown = lines.join('\n');
  expect(shown).toContain('session.login_with_password');
  expect(shown).toContain('/export_raw_vdi');
  expect(known.size).toBe(2);
  for (const secret of [...known, remote.password]) expect(shown).not.toContain(secret);
});
