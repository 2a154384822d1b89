import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { ownersBlocks, readMigrationBlocks } from '../../src/snapshot/block-migration.ts';
import {
  bearsWorkingName,
  intentKey,
  isOurKey,
  isUnmarkedWork,
  mayBeAlive,
  OWNER_KEY,
  RESTORED_FROM_KEY,
  readIntents,
  readOwnerMark,
  readRestoredFrom,
  startRun,
  workingName,
} from '../../src/snapshot/ownership.ts';
import { DEAD } from './support.ts';

const uuid = 'a0000000-0000-4000-8000-000000000001';
const vmUuid = 'b0000000-0000-4000-8000-000000000001';
const mark = { uuid, vmUuid, runId: '0123456789ab', runner: DEAD, at: '2026-01-01T00:00:00.000Z', state: 'working' };
const marked = (key: string, value: unknown, own = uuid) => ({
  uuid: own,
  other_config: { [key]: typeof value === 'string' ? value : JSON.stringify(value) },
});

describe('a mark is read', () => {
  test('from the object that it names', () => {
    expect(readOwnerMark(marked(OWNER_KEY, mark))).toEqual(mark);
    expect(readIntents(marked(intentKey(mark.runId), mark))).toEqual([mark]);
    const origin = { uuid, vmUuid, repositoryId: 'r', point: 'p' };
    expect(readRestoredFrom(marked(RESTORED_FROM_KEY, origin))).toEqual(origin);
  });

  test.each<[string, unknown, string?]>([
    ['a copy on another object', mark, 'c0000000-0000-4000-8000-000000000001'],
    ['no run', { ...mark, runId: undefined }],
    ['no VM', { ...mark, vmUuid: undefined }],
    ['no state', { ...mark, state: 7 }],
    ['no runner', { ...mark, runner: undefined }],
    ['half a runner', { ...mark, runner: { hostname: 'h', pid: 1 } }],
    ['no number', { ...mark, runner: { ...DEAD, pid: '1' } }],
    ['no JSON', '{'],
    ['null', 'null'],
    ['a text', '"text"'],
  ])('not where there is %s', (_, value, own) => {
    expect(readOwnerMark(marked(OWNER_KEY, value, own))).toBeUndefined();
  });

  test('an intent only under the key of its run', () => {
    expect(readIntents(marked(intentKey('another'), mark))).toEqual([]);
  });
});

describe('a block of migration', () => {
  const blocked = (value: object) => ({
    uuid,
    blocked_operations: { migrate_send: `xen-backup-sdk is backing this VM up: ${JSON.stringify(value)}` },
  });

  test('is a run’s where its reason names this VM and a runner', () => {
    expect(readMigrationBlocks(blocked(mark))).toEqual([mark]);
    expect(ownersBlocks(blocked(mark))).toEqual({});
  });

  test.each<[string, object]>([
    ['another VM', { ...mark, uuid: vmUuid }],
    ['no runner', { ...mark, runner: undefined }],
    ['half a runner', { ...mark, runner: { hostname: 'h', pid: 1 } }],
    ['no run', { ...mark, runId: undefined }],
  ])('is its owner’s where it names %s', (_, value) => {
    expect(readMigrationBlocks(blocked(value))).toEqual([]);
    expect(ownersBlocks(blocked(value))).toEqual(blocked(value).blocked_operations);
  });
});

test('our keys', () => {
  expect([OWNER_KEY, intentKey('x'), RESTORED_FROM_KEY].every(isOurKey)).toBe(true);
  expect(['mac_seed', 'xen-backup', 'xo:backup'].some(isOurKey)).toBe(false);
});

test('a name says which run, whatever the VM is called', () => {
  for (const name_label of ['web', '', ' [xen-backup-sdk x]', 'd\u00fcr [a]\n"quoted"', '漢字']) {
    const name = workingName({ name_label }, 'run1');
    expect(bearsWorkingName({ name_label: name }, 'run1')).toBe(true);
    expect(bearsWorkingName({ name_label: name }, 'run2')).toBe(false);
  }
});

test('unmarked work: name, origin and kind together', () => {
  const vm = { ref: 'OpaqueRef:vm', uuid: '22222222-0000-4000-8000-000000000000' };
  const name_label = workingName({ name_label: 'web' }, 'run1');
  const snapshot = { uuid, is_a_snapshot: true, snapshot_of: vm.ref, name_label, other_config: {} };
  const isOurs = (change: object) => isUnmarkedWork({ ...snapshot, ...change } as never, vm, 'run1');
  expect(isOurs({})).toBe(true);
  expect(isOurs({ is_a_snapshot: false })).toBe(false);
  expect(isOurs({ snapshot_of: 'OpaqueRef:other' })).toBe(false);
  expect(isOurs({ snapshot_of: 'OpaqueRef:NULL' })).toBe(false);
  expect(isOurs({ name_label: 'web' })).toBe(false);
  expect(isOurs(marked(OWNER_KEY, mark))).toBe(false); // what is marked is judged by its mark
  // made by the guest's tools for a quiesced snapshot: the intent travelled into it
  const byTools = { name_label: `Snapshot of ${vm.uuid} [20261126T120000Z]` };
  const withIntents = (...runs: string[]) => ({
    ...byTools,
    other_config: Object.fromEntries([['other', ''], ...runs.map((run) => [intentKey(run), '{}'])]),
  });
  expect(isOurs(withIntents('run1'))).toBe(true);
  expect(isOurs({ ...withIntents('run1'), snapshot_of: 'OpaqueRef:other' })).toBe(false);
  expect(isOurs({ ...withIntents('run1'), name_label: `Snapshot of ${uuid} [20261126T120000Z]` })).toBe(false);
  expect(isOurs({ ...withIntents('run1'), name_label: 'by hand' })).toBe(false);
  expect(isOurs(byTools)).toBe(false);
  expect(isOurs(withIntents('run2'))).toBe(false);
  expect(isOurs(withIntents('run1', 'run2'))).toBe(false); // of one of the two, but which?
});

describe('may its run be alive?', () => {
  const now = Date.now();
  const ago = (ms: number) => new Date(now - ms).toISOString();
  const HOUR = 3600_000;
  const here = { hostname: hostname(), pid: process.pid, thread: threadId };
  test.each<[string, boolean, object, string]>([
    ['a process that is gone', false, DEAD, ago(0)],
    ['a process that exists', true, { ...here, pid: process.ppid }, ago(100 * HOUR)],
    ['a process of somebody else', true, { ...here, pid: 1 }, ago(0)],
    ['this thread, and not running', false, here, ago(0)],
    ['another thread of this process', true, { ...here, thread: 99 }, ago(0)],
    ['a thread of an earlier process with our number', false, { ...here, thread: 99 }, ago(1000 * HOUR)],
    ['another machine, lately', true, { ...DEAD, hostname: 'elsewhere' }, ago(23 * HOUR)],
    ['another machine, long ago', false, { ...DEAD, hostname: 'elsewhere' }, ago(25 * HOUR)],
    ['another machine, at a time nobody knows', false, { ...DEAD, hostname: 'elsewhere' }, 'yesterday'],
  ])('%s: %s', (_, alive, runner, at) => {
    expect(mayBeAlive({ runId: 'nobody', runner: runner as never, at }, now)).toBe(alive);
  });

  test('a run of this process, until it ends', () => {
    const run = startRun('mine');
    expect(run.runner).toEqual(here);
    expect(mayBeAlive({ runId: 'mine', runner: DEAD, at: ago(0) }, now)).toBe(true);
    run.end();
    expect(mayBeAlive({ runId: 'mine', runner: run.runner, at: ago(0) }, now)).toBe(false);
  });
});
