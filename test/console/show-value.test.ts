import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { showValue } from '../../src/console/show-value.ts';
import { BackupError, RunError, type RunReport } from '../../src/core/index.ts';
import { preflight } from '../../src/preflight/index.ts';
import { startPool } from '../support/pool.ts';

const report: RunReport = {
  run: 'backup',
  runId: 'run-1',
  vm: { uuid: 'vm-1', name: 'web' },
  outcome: 'failed',
  startedAt: '2026-01-01T00:00:00.000Z',
  finishedAt: '2026-01-01T00:00:01.000Z',
  stages: [{ name: 'snapshot', durationMs: 12, busyMs: 0 }],
  disks: [],
  transfer: { bytes: 3 * 2 ** 20, hostMs: 700, hashMs: 9, storeMs: 100, slowSide: 'host', share: 0.716 },
  hooks: [],
  decisions: [],
  warnings: [{ code: 'SLOW', message: 'a slow host' }],
  receipt: [
    { kind: 'snapshot', uuid: 'snapshot-1', name: 'web now', state: 'left', error: 'the host is gone' },
    { kind: 'tracking', uuid: 'disk-1', name: 'system', state: 'kept' },
  ],
};

describe('a list', () => {
  test('of extents is a table, however many there are', () => {
    const extents = Array.from({ length: 2500 }, (_, index) => ({ offset: index * 512, length: 512, kind: 'data' }));
    const lines = showValue(extents).split('\n');
    expect(lines.slice(0, 3)).toEqual(['offset  length  kind', '------  ------  ----', '     0     512  data']);
    expect(lines).toHaveLength(103);
    expect(lines.at(-1)).toBe('… and 2400 more');
  });

  test('shows no member that no row has', () => {
    expect(showValue([{ a: 1, b: undefined, c: null }, { a: 2 }])).toBe('a\n-\n1\n2');
  });

  test.each([
    ['of nothing', []],
    ['of numbers', [1, 2]],
    ['of lists', [[1], [2]]],
    ['of objects with more inside', [{ a: { b: 1 } }]],
    ['of functions in objects', [{ run: () => 1 }]],
    ['of objects of a class', [new URL('https://xen.example.org'), new URL('https://xen.example.org')]],
    ['of two kinds', [{ a: 1 }, 'b']],
    ['of empty objects', [{}, {}]],
    ['of objects with many members', [Object.fromEntries(Array.from({ length: 9 }, (_, at) => [`member${at}`, at]))]],
  ])('%s is what Node makes of it', (_name, list) => {
    expect(showValue(list)).toBe(inspect(list));
  });

  test('of findings has what to do below each', async () => {
    await using pool = await startPool({ nbd: false });
    const [finding] = (await preflight(pool.host)).filter(({ id }) => id === 'nbd.no-network');
    const { message, fix } = finding!;
    expect(showValue([finding]).split('\n')).toEqual([
      'severity  id              message',
      expect.stringMatching(/^-{8} {2}-{14} {2}-+$/),
      `error     nbd.no-network  ${message}`,
      `                          -> ${fix!.words}`,
    ]);
  });

  test('of storage, disks and hosts is a table without references', async () => {
    await using pool = await startPool();
    await pool.simulator.createVm({ name: 'web', disks: [{ size: 2 ** 21, name: 'system' }] });
    const shown = await Promise.all((['SR', 'VDI', 'host'] as const).map((type) => pool.host.listRecords(type)));
    const [storage, disks, hosts] = shown.map((records) => showValue(records));
    expect(storage).toMatch(/^name_label +type +physical_size +physical_utilisation +shared +uuid\n/);
    expect(disks).toMatch(
      /^name_label +virtual_size +type +cbt_enabled +uuid\n[- ]+\nsystem +2\.0 MiB +user +false +\S+$/,
    );
    expect(hosts).toMatch(/^name_label +address +enabled +uuid\n[- ]+\nsimulated-host +127\.0\.0\.1 +true +\S+$/);
  });
});

describe('one value', () => {
  test('with lists in it is its facts and a table for each list that holds anything', () => {
    expect(showValue(report)).toBe(
      [
        'run         backup',
        'vm.name     web',
        'outcome     failed',
        'startedAt   2026-01-01T00:00:00.000Z',
        'finishedAt  2026-01-01T00:00:01.000Z',
        'transfer    3.0 MiB, slow side: host (72 % of the time)',
        '',
        'stages',
        'name      durationMs  busyMs',
        '--------  ----------  ------',
        'snapshot          12       0',
        '',
        'warnings',
        'code  message',
        '----  -----------',
        'SLOW  a slow host',
        '',
        'receipt',
        'kind      uuid        name     state  error',
        '--------  ----------  -------  -----  ----------------',
        'snapshot  snapshot-1  web now  left   the host is gone',
        'tracking  disk-1      system   kept',
      ].join('\n'),
    );
  });

  test('is silent of a transfer where nothing moved', () => {
    const transfer = { ...report.transfer, slowSide: 'none' } as const;
    expect(showValue({ ...report, transfer })).not.toContain('transfer');
  });

  test.each([[undefined], [null], [1n], ['text'], [{ a: { b: { c: 1 } } }], [new Map([[1, 2]])], [Symbol('s')]])(
    'of no kind of ours is what Node makes of it: %s',
    (value) => {
      expect(showValue(value)).toBe(inspect(value));
    },
  );
});

describe('an error', () => {
  test('of the library is its code and message, on one line and without secrets', () => {
    const error = new BackupError('TIMEOUT', 'no\nanswer to https://root:hunter2@xen.example.org\x1b[2J');
    expect(showValue(error)).toBe('BackupError TIMEOUT: no answer to https://root:<redacted>@xen.example.org');
  });

  test('of a run tells what it could not take back', () => {
    const error = new RunError('RUN_FAILED', 'it broke', report, new Error('why'));
    expect(showValue(error).split('\n')).toEqual([
      'RunError RUN_FAILED: it broke',
      'kind      name     state  error             uuid',
      '--------  -------  -----  ----------------  ----------',
      'snapshot  web now  left   the host is gone  snapshot-1',
    ]);
  });

  test('of anyone else keeps its stack', () => {
    expect(showValue(new TypeError('mine'))).toMatch(/^TypeError: mine\n {4}at /);
  });
});
