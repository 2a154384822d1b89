import { describe, expect, test } from 'vitest';
import { BackupError, HostError, type ProgressEvent, RunRecorder, systemClock } from '../../src/core/index.ts';
import { manualStopwatch } from '../support/manual-stopwatch.ts';

const VM = { uuid: 'u', name: 'web' };
const recorder = (onProgress?: (event: ProgressEvent) => void) =>
  new RunRecorder({ run: 'backup', vm: VM, clock: systemClock, onProgress });

describe('a run recorder', () => {
  test('reports stages, warnings and fallbacks, and tells them', () => {
    let now = 1000;
    const events: ProgressEvent[] = [];
    const clock = { ...systemClock, now: () => now };
    const stopwatch = manualStopwatch();
    const onProgress = (event: ProgressEvent) => void events.push(event);
    const run = new RunRecorder({ run: 'backup', vm: VM, clock, stopwatch, onProgress });
    run.stage('one');
    now += 30;
    stopwatch.work(20.2);
    stopwatch.wait(10);
    run.stage('two');
    run.warn('W', 'careful');
    run.fallBack('disk', 'delta', 'full', 'because');
    now += 12;
    stopwatch.work(12.9); // the other clock has whole milliseconds
    const report = run.report('success');
    expect(report.stages).toEqual([
      { name: 'one', durationMs: 30, busyMs: 20 },
      { name: 'two', durationMs: 12, busyMs: 12 },
    ]);
    expect(report).toMatchObject({ startedAt: '1970-01-01T00:00:01.000Z', outcome: 'success', error: undefined });
    expect(report.decisions).toEqual([{ subject: 'disk', topic: 'fallback', choice: 'full', reason: 'because' }]);
    expect(events.map(({ kind }) => kind)).toEqual(['stage', 'stage', 'warning', 'fell-back']);
  });

  test('reports disks in the order of the plan, in whatever order they finish', () => {
    const run = new RunRecorder({ run: 'backup', vm: VM, diskOrder: ['a', 'b'], clock: systemClock });
    const time = { hostMs: 0, hashMs: 0, storeMs: 0 };
    const rest = { name: 'n', mode: 'full', transport: 'raw', size: 1, bytesMoved: 1, durationMs: 1, time };
    for (const vdiUuid of ['b', 'an archive', 'a']) run.disks.push({ vdiUuid, ...rest });
    expect(run.report('success').disks.map(({ vdiUuid }) => vdiUuid)).toEqual(['an archive', 'a', 'b']);
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

  test.each([
    ['backup', { hostMs: 7, storeMs: 2 }],
    ['restore', { hostMs: 2, storeMs: 7 }],
  ] as const)('of a %s sums up its transfers, also one that failed, and names the slow side', async (kind, times) => {
    const stopwatch = manualStopwatch();
    const run = new RunRecorder({ run: kind, vm: VM, clock: systemClock, stopwatch });
    expect(run.report('failed').transfer).toEqual({
      ...{ bytes: 0, hostMs: 0, hashMs: 0, storeMs: 0 },
      ...{ slowSide: 'none', share: 0 },
    });
    run.stage('snapshot');
    stopwatch.work(100);
    run.stage('transfer');
    async function* chunks(ms: number): AsyncGenerator<number, void> {
      stopwatch.wait(ms);
      yield 1;
    }
    const move = async (ms: number, failure?: Error) => {
      const meter = run.meter();
      meter.bytes = 1000;
      const moving = async () => {
        for await (const _ of meter.through(chunks(ms))) {
          stopwatch.wait(1);
          if (failure !== undefined) throw failure;
        }
      };
      await meter.untilDone(moving());
    };
    await move(3);
    await expect(move(4, new Error('full'))).rejects.toThrow('full');
    stopwatch.work(1);
    run.stage('commit');
    stopwatch.work(100);
    const { transfer } = run.failure(new Error('full'), undefined).report;
    const slowSide = kind === 'backup' ? 'host' : 'store';
    expect(transfer).toEqual({ bytes: 2000, ...times, hashMs: 0, slowSide, share: 0.7 });
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
