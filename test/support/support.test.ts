import { access } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { hasTool } from './has-tool.ts';
import { manualClock } from './manual-clock.ts';
import { patterned } from './patterned.ts';
import { CHUNKINGS, chunksOf, collect, failEachRead, InjectedFailure, SOURCE_KINDS, sourceOf } from './sources.ts';
import { makeTempDir } from './temp-dir.ts';

test('a missing tool skips on a laptop and throws in CI', () => {
  expect(hasTool('no-such-program', {})).toBe(false);
  expect(() => hasTool('no-such-program', { CI: 'true' })).toThrow('no-such-program is missing');
  expect(hasTool('sh', { CI: 'true' })).toBe(true);
});

test('a temporary directory is gone after its block', async () => {
  let path: string;
  {
    await using dir = await makeTempDir();
    path = dir.path;
    await access(path);
  }
  await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' });
});

test.each(CHUNKINGS)('chunks cut as %s give all bytes', async (chunking) => {
  const bytes = patterned(10_000);
  expect(await collect(chunksOf(bytes, chunking))).toEqual(bytes);
});

test.each(SOURCE_KINDS)('a source in a %s gives all bytes', async (kind) => {
  const bytes = patterned(3000);
  await using source = await sourceOf(kind, bytes);
  expect(await readBytes(source, 0, source.size)).toEqual(bytes);
});

test('each read is failed in turn', async () => {
  const outcomes = await failEachRead(patterned(30), async (source) => {
    for (let at = 0; at < 30; at += 10) await readBytes(source, at, 10);
  });
  expect(outcomes.map(({ read }) => read)).toEqual([1, 2, 3]);
  for (const { error } of outcomes) expect(error).toBeInstanceOf(InjectedFailure);
});

test('the manual clock wakes sleepers in their order, and the time is theirs', async () => {
  const clock = manualClock(0);
  const woken: [string, number][] = [];
  const sleepers = [
    clock.sleep(300).then(() => woken.push(['late', clock.now()])),
    clock.sleep(100).then(() => woken.push(['early', clock.now()])),
    clock.sleep(900).then(() => woken.push(['last', clock.now()])),
  ];
  await clock.untilSleeping(3);
  await clock.advance(500);
  expect(woken).toEqual([
    ['early', 100],
    ['late', 300],
  ]);
  expect([clock.now(), clock.sleeping]).toEqual([500, 1]);
  await clock.advance(500);
  await Promise.all(sleepers);
  expect(woken.at(-1)).toEqual(['last', 900]);
});

test('an abort wakes a sleeper of the manual clock with its reason', async () => {
  const clock = manualClock();
  const stop = new AbortController();
  const sleep = clock.sleep(1000, { signal: stop.signal });
  const reason = new Error('enough');
  stop.abort(reason);
  await expect(sleep).rejects.toBe(reason);
  expect(clock.sleeping).toBe(0);
});
