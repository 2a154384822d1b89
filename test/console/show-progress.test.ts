import { describe, expect, test } from 'vitest';
import { showProgress } from '../../src/console/index.ts';
import type { ProgressEvent } from '../../src/core/index.ts';
import { fakeTerminal } from './fake-terminal.ts';

const MIB = 2 ** 20;
const run = 'backup';

function started(diskId: string, totalBytes?: number): ProgressEvent {
  return { kind: 'disk-started', run, diskId, label: `disk ${diskId}`, mode: 'full', size: 1000 * MIB, totalBytes };
}

function moved(diskId: string, movedBytes: number, totalBytes?: number): ProgressEvent {
  return { kind: 'bytes-moved', run, diskId, movedBytes, totalBytes };
}

function finished(diskId: string, movedBytes: number): ProgressEvent {
  return { kind: 'disk-finished', run, diskId, movedBytes };
}

function handClock(): { now(): number; advance(ms: number): void } {
  let ms = 0;
  return {
    now: () => ms,
    advance(by) {
      ms += by;
    },
  };
}

function lineStream(): { text: string; write(text: string): void } {
  return {
    text: '',
    write(text) {
      this.text += text;
    },
  };
}

describe('without a terminal', () => {
  test('tells every event of note, and a disk at each tenth only', () => {
    const stream = lineStream();
    const clock = handClock();
    const { onProgress } = showProgress(stream, { clock });
    onProgress({ kind: 'stage', run, stage: 'snapshot', vmUuid: 'vm-1' });
    onProgress(started('a', 100 * MIB));
    for (let at = 1; at <= 100; at++) {
      clock.advance(100);
      onProgress(moved('a', at * MIB, 100 * MIB));
    }
    onProgress(finished('a', 100 * MIB));
    onProgress({ kind: 'fell-back', run, subject: 'vm-1', from: 'quiesced', to: 'crash', reason: 'MESSAGE_REMOVED' });
    onProgress({ kind: 'warning', run, code: 'SLOW', message: 'the host is slow' });
    onProgress({ kind: 'retrying', run, subject: 'disk a', attempt: 2, waitMs: 4000, reason: 'cut' });
    onProgress({ kind: 'waiting', run, vmUuid: 'vm-1', waitMs: 9000, reason: 'process 5 on nas (prune)' });
    expect(stream.text.split('\n')).toEqual([
      'backup: snapshot (VM vm-1)',
      'backup: disk a: full, 1000 MiB, 100 MiB to move',
      ...[10, 20, 30, 40, 50, 60, 70, 80, 90].map((n) => `backup: disk a: ${n} % (${n}.0 MiB of 100 MiB)`),
      'backup: disk a: done, 100 MiB in 10 s, 10.0 MiB/s',
      'backup: vm-1: fell back from quiesced to crash: MESSAGE_REMOVED',
      'backup: warning SLOW: the host is slow',
      'backup: disk a: try 2 failed, next in 4 s: cut',
      'backup: waits up to 9 s for process 5 on nas (prune) (VM vm-1)',
      '',
    ]);
  });

  test('a disk whose total nobody knows is told at each tenth of its size', () => {
    const stream = lineStream();
    const { onProgress } = showProgress(stream, { clock: handClock() });
    onProgress(started('a'));
    for (let at = 10; at <= 260; at += 10) onProgress(moved('a', at * MIB));
    expect(stream.text.match(/\S+ MiB moved/g)).toEqual(['100 MiB moved', '200 MiB moved']);
  });

  test('a file that is verified or copied is told at each tenth', () => {
    const stream = lineStream();
    const { onProgress } = showProgress(stream, { clock: handClock() });
    const file = 'vms/vm-1/points/point.metadata.json';
    for (let at = 1; at <= 4; at++) {
      onProgress({ kind: 'bytes-moved', run: 'copy', diskId: file, movedBytes: at * MIB, totalBytes: 4 * MIB });
    }
    expect(stream.text.split('\n')).toEqual([
      'copy: points/point.metadata.json: 25 % (1.0 MiB of 4.0 MiB)',
      'copy: points/point.metadata.json: 50 % (2.0 MiB of 4.0 MiB)',
      'copy: points/point.metadata.json: 75 % (3.0 MiB of 4.0 MiB)',
      '',
    ]);
  });

  test('nothing to move is no division by zero', () => {
    const stream = lineStream();
    const { onProgress } = showProgress(stream, { clock: handClock() });
    onProgress(started('a', 0));
    onProgress(moved('a', 0, 0));
    onProgress(finished('a', 0));
    expect(stream.text).toContain('disk a: done, 0 B in 0 ms\n');
    expect(stream.text).not.toMatch(/NaN|Infinity/);
  });

  test('names with escape sequences and secrets are made harmless', () => {
    const stream = lineStream();
    const { onProgress } = showProgress(stream, { clock: handClock() });
    onProgress({
      kind: 'warning',
      run,
      code: 'X',
      message: 'a\x1b[2J\r\nb\u202ec session_id=OpaqueRef:0123-4567-89ab',
    });
    expect(stream.text).toBe('backup: warning X: a b c session_id=<redacted>\n');
  });

  test('events of kinds or disks it does not know are ignored, and all events after close', () => {
    const stream = lineStream();
    const display = showProgress(stream, { clock: handClock() });
    display.onProgress({ kind: 'invented later' } as unknown as ProgressEvent);
    display.onProgress(moved('unknown', 1));
    display.close();
    display.close();
    display.onProgress({ kind: 'stage', run, stage: 'late' });
    expect(stream.text).toBe('');
  });
});

describe('on a terminal', () => {
  test('draws a bar for each disk below what happened, and leaves only that', () => {
    const terminal = fakeTerminal();
    const clock = handClock();
    const display = showProgress(terminal, { clock });
    display.onProgress({ kind: 'stage', run, stage: 'transfer' });
    display.onProgress(started('a', 100 * MIB));
    display.onProgress(started('b'));
    clock.advance(5000);
    display.onProgress(moved('a', 25 * MIB, 100 * MIB));
    clock.advance(100);
    display.onProgress(moved('b', 51 * MIB));
    const announced = [
      'backup: transfer',
      'backup: disk a: full, 1000 MiB, 100 MiB to move',
      'backup: disk b: full, 1000 MiB',
    ];
    expect(terminal.screen).toEqual([
      ...announced,
      'disk a                    [######------------------]   25 % of 100 MiB  4.9 MiB/s  15 s left',
      'disk b                    51.0 MiB moved  10.0 MiB/s',
    ]);
    clock.advance(4900);
    display.onProgress(finished('a', 100 * MIB));
    expect(terminal.screen).toEqual([
      ...announced,
      'backup: disk a: done, 100 MiB in 10 s, 10.0 MiB/s',
      'disk b                    51.0 MiB moved  5.1 MiB/s',
    ]);
    display.close();
    expect(terminal.screen).toEqual([...announced, 'backup: disk a: done, 100 MiB in 10 s, 10.0 MiB/s']);
  });

  test('a file that is verified or copied has a bar, too, while it moves', () => {
    const terminal = fakeTerminal();
    const clock = handClock();
    const { onProgress } = showProgress(terminal, { clock });
    const file = 'vms/vm-1/disks/disk-1/point.vhd';
    for (let at = 1; at < 4; at++) {
      onProgress({ kind: 'bytes-moved', run: 'verify', diskId: file, movedBytes: at * MIB, totalBytes: 4 * MIB });
      clock.advance(1000);
    }
    expect(terminal.screen).toEqual([
      'disk-1/point.vhd          [##################------]   75 % of 4.0 MiB  1.5 MiB/s  667 ms left',
    ]);
    onProgress({ kind: 'bytes-moved', run: 'verify', diskId: file, movedBytes: 4 * MIB, totalBytes: 4 * MIB });
    expect(terminal.screen).toEqual([]);
  });

  test('redraws no more often than asked', () => {
    const terminal = fakeTerminal();
    const clock = handClock();
    const { onProgress } = showProgress(terminal, { clock, redrawMs: 250 });
    onProgress(started('a', 1000 * MIB));
    const before = terminal.writes;
    for (let at = 1; at <= 1000; at++) {
      clock.advance(1);
      onProgress(moved('a', at * MIB, 1000 * MIB));
    }
    expect(terminal.writes - before).toBe(4);
  });

  test('a narrow and low terminal is never overrun', () => {
    const terminal = fakeTerminal({ columns: 40, rows: 6 });
    const { onProgress } = showProgress(terminal, { clock: handClock(), redrawMs: 0 });
    for (const id of ['1', '2', '3', '4', '5', '6']) onProgress(started(id, MIB));
    for (const id of ['1', '2', '3', '4', '5', '6']) onProgress(moved(id, MIB / 2, MIB));
    expect(terminal.screen.slice(6)).toHaveLength(5);
    expect(terminal.screen.at(-1)).toBe('… and 2 more');
    for (const line of terminal.screen.slice(6)) expect(line.length).toBeLessThan(40);
  });

  test('80 columns are enough for the widest numbers', () => {
    const terminal = fakeTerminal({ columns: 80, rows: 24 });
    const clock = handClock();
    const { onProgress } = showProgress(terminal, { clock });
    onProgress(started('with a name that is longer than there is room', 200_000 * MIB));
    clock.advance(60_000);
    onProgress(moved('with a name that is longer than there is room', 19_000.5 * MIB, 200_000 * MIB));
    expect(terminal.screen.at(-1)).toBe(
      'disk with a nam…  [#-----------]    9 % of 195 GiB  317 MiB/s  9 min 32 s left',
    );
  });

  test('the rate is that of the last seconds, not of the whole run', () => {
    const terminal = fakeTerminal();
    const clock = handClock();
    const { onProgress } = showProgress(terminal, { clock });
    onProgress(started('a', 10_000 * MIB));
    let bytes = 0;
    for (let second = 0; second < 60; second++) {
      clock.advance(1000);
      bytes += (second < 30 ? 100 : 1) * MIB;
      onProgress(moved('a', bytes, 10_000 * MIB));
    }
    expect(terminal.screen.at(-1)).toContain('  1.0 MiB/s  ');
  });
});
