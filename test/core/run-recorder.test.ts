import { describe, expect, test } from 'vitest';
import { BackupError, HostError, type ProgressEvent, RunRecorder, systemClock } from '../../src/core/index.ts';

const VM = { uuid: 'u', name: 'web' };
const recorder = (onProgress?: (event: ProgressEvent) => void) =>
  new RunRecorder({ run: 'backup', vm: VM, clock: systemClock, onProgress });

describe('a run recorder', () => {
  test('reports stages, warnings and fallbacks, and tells them', () => {
    let now = 1000;
    const events: ProgressEvent[] = [];
    const clock = { ...systemClock, now: () => now };
    const run = new RunRecorder({ run: 'backup', vm: VM, clock, onProgress: (event) => void events.push(event) });
    run.stage('one');
    now += 30;
    run.stage('two');
    run.warn('W', 'careful');
    run.fallBack('disk', 'delta', 'full', 'because');
    now += 12;
    const report = run.report('success');
    expect(report.stages).toEqual([
      { name: 'one', durationMs: 30 },
      { name: 'two', durationMs: 12 },
    ]);
    expect(report).toMatchObject({ startedAt: '1970-01-01T00:00:01.000Z', outcome: 'success', error: undefined });
    expect(report.decisions).toEqual([{ subject: 'disk', topic: 'fallback', choice: 'full', reason: 'because' }]);
    expect(events.map(({ kind }) => kind)).toEqual(['stage', 'stage', 'warning', 'fell-back']);
  });

  test('passes on what its listener throws, until the work is settled', () => {
    const run = recorder(() => {
      throw new Error('of the listener');
    });
    expect(() => run.stage('one')).toThrow('of the listener');
    expect(() => run.warn('W', 'careful')).toThrow('of the listener');
    run.settle();
    run.stage('two');
    expect(run.warnings).toEqual([
      { code: 'W', message: 'careful' },
      { code: 'LISTENER_FAILED', message: 'onProgress threw: of the listener' },
    ]);
  });

  test('keeps code, facts, host code and cause of a failure', () => {
    const cause = new HostError('VDI_IN_USE', ['x'], 'busy', { retryable: true });
    const error = recorder().failure(cause, undefined);
    expect(error).toMatchObject({ code: 'HOST_CALL_FAILED', xapiCode: 'VDI_IN_USE', retryable: true, cause });
    expect(error.facts).toEqual(cause.facts);
    expect(error.report).toMatchObject({ outcome: 'failed', error: { code: 'HOST_CALL_FAILED', message: 'busy' } });
  });

  test.each<[unknown, string]>([
    [new TypeError('oops'), 'oops'],
    ['a text', 'a text'],
    [undefined, 'undefined'],
  ])('gives %s the code RUN_FAILED', (cause, message) => {
    expect(recorder().failure(cause, undefined)).toMatchObject({ code: 'RUN_FAILED', message, cause });
  });

  test('tells an abort as such, with the reason of the signal', () => {
    const reason = new Error('enough');
    const error = recorder().failure(new BackupError('TIMEOUT', 'late'), AbortSignal.abort(reason));
    expect(error).toMatchObject({ code: 'ABORTED', cause: reason, report: { outcome: 'aborted' } });
    expect(JSON.parse(JSON.stringify(error.report)).error).toEqual({
      code: 'ABORTED',
      message: 'the backup of web was aborted',
    });
  });
});
