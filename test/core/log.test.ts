import debug from 'debug';
import { afterEach, expect, test } from 'vitest';
import { createLog } from '../../src/core/index.ts';

const print = debug.log;
afterEach(() => {
  debug.disable();
  debug.log = print;
});

function captured(): string[] {
  const lines: string[] = [];
  debug.log = (...parts: unknown[]) => lines.push(parts.map(String).join(' '));
  return lines;
}

test('is silent until its namespace is switched on', () => {
  const lines = captured();
  const log = createLog('host');
  const facts = {
    get costly() {
      return expect.fail('read although nobody listens');
    },
  };
  log.debug('nothing', facts);
  debug.enable('xen-backup-sdk:disk');
  log.debug('nothing', facts);
  expect(lines).toEqual([]);
  debug.enable('xen-backup-sdk:*');
  log.debug('a task ended', { ref: 'task-1' });
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('xen-backup-sdk:host');
  expect(lines[0]).toContain("a task ended { ref: 'task-1' }");
});

test('facts and messages lose their secrets', () => {
  const lines = captured();
  debug.enable('xen-backup-sdk:*');
  createLog('host').debug('connecting to https://root:hunter2@host', {
    password: 'hunter2',
    nested: { headers: { Authorization: 'Basic hunter2' }, body: '{"password":"hunter2"}' },
    nbd: '/vdi?session_id=OpaqueRef:hunter2',
    list: ['OpaqueRef:hunter2'],
  });
  expect(lines).toHaveLength(1);
  expect(lines[0]).not.toContain('hunter2');
});

test('a percent sign in a message is no placeholder', () => {
  const lines = captured();
  debug.enable('xen-backup-sdk:*');
  createLog('disk').debug('50%d of 100%s done', { done: 50 });
  expect(lines[0]).toContain('50%d of 100%s done { done: 50 }');
});

test('prints arrays without their hidden members', () => {
  const lines = captured();
  debug.enable('xen-backup-sdk:*');
  createLog('disk').debug('blocks', { list: [1, 2] });
  expect(lines[0]).toContain('{ list: [ 1, 2 ] }');
});
