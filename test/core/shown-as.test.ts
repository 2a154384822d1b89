import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { RunError, type RunReport, shownAs } from '../../src/core/index.ts';

test('what is told is asked for at each printing; a copy keeps it', () => {
  let size = 1;
  const disk = shownAs({ read: () => {} }, 'Disk', () => ({ of: 'memory', size, parent: undefined }));
  size = 2;
  expect(inspect(disk)).toBe("Disk { of: 'memory', size: 2 }");
  expect(inspect({ ...disk, close: () => {} })).toBe("Disk { of: 'memory', size: 2 }");
  expect(inspect([[disk]])).toBe("[ [ Disk { of: 'memory', size: 2 } ] ]");
});

test('a secret that slipped in does not get out', () => {
  const host = shownAs({}, 'Host', () => ({ label: 'https://root:hunter2@xen.example.org' }));
  expect(inspect(host)).toBe("Host { label: 'https://root:<redacted>@xen.example.org' }");
});

test('a run error prints its stack, what it left, and its cause, not the whole report', () => {
  const report: RunReport = {
    run: 'backup',
    runId: 'run-1',
    vm: { uuid: 'vm-1', name: 'web' },
    outcome: 'failed',
    startedAt: '2026-01-01T00:00:00.000Z',
    finishedAt: '2026-01-01T00:00:01.000Z',
    stages: [{ name: 'snapshot', durationMs: 1, busyMs: 0 }],
    disks: [],
    transfer: { bytes: 0, hostMs: 0, hashMs: 0, storeMs: 0, slowSide: 'none', share: 0 },
    hooks: [],
    decisions: [{ subject: 'vm', topic: 'mode', choice: 'full', reason: 'first backup' }],
    warnings: [],
    receipt: [{ kind: 'snapshot', uuid: 'snapshot-1', name: 'web now', state: 'left' }],
  };
  const cause = new Error('session_id=OpaqueRef:0123-4567 broke');
  const text = inspect(new RunError('RUN_FAILED', 'it broke', report, cause));
  expect(text).toMatch(/^RunError: it broke\n {4}at /);
  expect(text).toContain("code: 'RUN_FAILED'");
  expect(text).toContain("receipt: [ 'snapshot web now: left' ]");
  expect(text).toContain('cause: Error: session_id=<redacted> broke');
  expect(text).not.toMatch(/first backup|stages|0123-4567/);
});
