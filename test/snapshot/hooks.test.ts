import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { type HookReport, systemClock } from '../../src/core/index.ts';
import { assertHooks, betweenHooks, type SnapshotHooks } from '../../src/snapshot/hooks.ts';
import { manualClock } from '../support/manual-clock.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const VM = { uuid: '11111111-0000-4000-8000-000000000000', name: 'web' };
const node = (script: string, ...args: string[]) => [process.execPath, '-e', script, ...args] as [string, ...string[]];

function between(hooks: SnapshotHooks, work: () => Promise<string>, options: object = {}) {
  const reports: HookReport[] = [];
  const onEnded = (report: HookReport) => void reports.push(report);
  const settings = { vm: VM, runId: 'r', clock: systemClock, onEnded, ...options };
  return { reports, promise: betweenHooks(hooks, settings, work) };
}

describe('a command', () => {
  test.each<[string, [string, ...string[]], object]>([
    ['exit code', node('process.exit(7)'), { outcome: 'failed', exitCode: 7, error: expect.stringContaining('7') }],
    ['no such program', ['/no/such/program'], { outcome: 'failed', error: expect.stringContaining('ENOENT') }],
    ['no shell reads it', node('process.exit(process.argv[1] === "$HOME; x" ? 0 : 1)', '$HOME; x'), { exitCode: 0 }],
    ['a signal', node('process.kill(process.pid, "SIGUSR2")'), { error: 'it was killed by SIGUSR2' }],
    ['what it prints', node('console.log("out"); console.error("err")'), { output: expect.stringMatching(/out|err/) }],
  ])('%s', async (_, run, expected) => {
    const { promise, reports } = between({ before: { run, onFailure: 'continue' } }, async () => 'done');
    expect(await promise).toBe('done');
    expect(reports).toMatchObject([expected]);
  });

  test('the last of its output is kept, without secrets', async () => {
    const script = 'console.log("x".repeat(100_000)); console.log("password=hunter2")';
    const { promise, reports } = between({ before: { run: node(script) } }, async () => '');
    await promise;
    expect(reports[0]!.output!.length).toBeLessThan(5000);
    expect(reports[0]!.output).toContain('password=<redacted>');
  });

  test('a process that it leaves behind with its pipes open is not waited for', async () => {
    const script = `const { spawn } = require('node:child_process');
      const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 20_000)'], { stdio: 'inherit', detached: true });
      require('node:fs').writeFileSync(process.argv[1], String(child.pid));
      child.unref();`;
    await using dir = await makeTempDir();
    const { promise, reports } = between({ before: { run: node(script, dir.file('pid')) } }, async () => 'done');
    expect(await promise).toBe('done');
    expect(reports).toMatchObject([{ outcome: 'succeeded' }]);
    const pid = Number(await readFile(dir.file('pid'), 'utf8'));
    expect(exists(pid)).toBe(true); // it was not ours to end
    process.kill(pid, 'SIGKILL');
  });

  test.skipIf(process.platform === 'win32').each([
    ['polite', ''],
    ['deaf', "process.on('SIGTERM', () => {});"],
  ])('ends with all that it started, when its time is over (%s)', async (_, manners) => {
    const script = `const { spawn } = require('node:child_process');
      ${manners}
      const deaf = "process.on('SIGTERM', () => {}); console.log('deaf'); setInterval(() => {}, 1000)";
      const child = spawn(process.execPath, ['-e', deaf], { stdio: ['ignore', 'pipe', 'ignore'] });
      child.stdout.once('data', () => require('node:fs').writeFileSync(process.argv[1], child.pid + ' ' + process.pid));
      setInterval(() => {}, 1000);`;
    await using dir = await makeTempDir();
    const clock = manualClock();
    const { promise, reports } = between({ before: { run: node(script, dir.file('pids')) } }, async () => '', {
      clock,
    });
    const settled = expect(promise).rejects.toMatchObject({ code: 'HOOK_FAILED' });
    const pidsNow = () => readFile(dir.file('pids'), 'utf8').catch(() => '');
    await expect.poll(pidsNow, { timeout: 5000 }).toMatch(/^\d+ \d+$/);
    await clock.advance(60_000); // now asked to end
    await clock.advance(5000);
    await settled;
    expect(reports).toMatchObject([{ outcome: 'timed-out', error: 'no end within 60000 ms' }]);
    for (const pid of (await pidsNow()).split(' ').map(Number)) await expect.poll(() => exists(pid)).toBe(false);
  });
});

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !isZombie(pid); // ended, but nobody has asked how: not every container has a process that does
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

function isZombie(pid: number): boolean {
  return existsSync('/proc') && / Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
}

describe('after', () => {
  test('runs with a signal of its own when the run is aborted in before, which is told', async () => {
    const stop = new AbortController();
    const told: string[] = [];
    const hooks: SnapshotHooks = {
      before: {
        run({ signal }) {
          stop.abort(new Error('enough'));
          told.push(`before ${signal.aborted}`);
          return new Promise(() => {});
        },
        onFailure: 'continue',
      },
      after: { run: ({ signal, snapshot }) => void told.push(`after ${signal.aborted} ${snapshot}`) },
    };
    const { promise, reports } = between(hooks, async () => 'never', { signal: stop.signal });
    await expect(promise).rejects.toThrow('enough');
    expect(told).toEqual(['before true', 'after false failed']);
    expect(reports.map(({ outcome }) => outcome)).toEqual(['aborted', 'succeeded']);
  });

  test('runs once when who is told of before throws, and when the work does; the first failure counts', async () => {
    let runs = 0;
    const run = async () => {
      runs++;
      throw new Error('later');
    };
    const after = { run, onFailure: 'abort' as const };
    const onEnded = () => {
      throw new Error('of the listener');
    };
    await expect(between({ before: { run() {} }, after }, async () => '', { onEnded }).promise).rejects.toThrow(
      'of the listener',
    );
    const failing = between({ after }, () => Promise.reject(new Error('first'))).promise;
    await expect(failing).rejects.toThrow('first');
    expect(runs).toBe(2);
  });
});

test.each<[SnapshotHooks, RegExp]>([
  [{ before: { run: [] as never } }, /hooks\.before\.run: expected a function/],
  [{ after: { run: 'fsfreeze -f /' as never } }, /hooks\.after\.run: expected a function/],
  [{ after: { run() {}, timeoutMs: 0 } }, /timeoutMs: expected 1/],
])('%o is no hook', (hooks, message) => {
  expect(() => assertHooks(hooks)).toThrow(message);
});
