import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { directoryStore, openRepository, type PointWriter } from '../../src/store/index.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir, tempDir } from '../support/temp-dir.ts';
import { MIB, makePoint, VM } from './support/points.ts';

let bundleDir: TempDir;
let bundle: string;
beforeAll(async () => {
  bundleDir = await makeTempDir();
  bundle = bundleDir.file('killed-writer.cjs');
  // Node 22 neither reads these sources nor knows `await using`: bundled as the build does it.
  await build({
    entryPoints: [join(import.meta.dirname, 'support', 'killed-writer.ts')],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node22',
    logLevel: 'error',
  });
});
afterAll(() => rm(bundleDir.path, { recursive: true, force: true }));

/** Runs the writer until it says that it is at `place`, does `meanwhile`, then kills it with SIGKILL. */
async function killAt(path: string, place: string, meanwhile?: (pid: number) => Promise<void>): Promise<void> {
  const child = spawn(process.execPath, [bundle, path, place], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit');
  let [out, err] = ['', ''];
  child.stderr.on('data', (data) => {
    err += String(data);
  });
  const reached = new Promise<void>((resolve) => {
    child.stdout.on('data', (data) => {
      out += String(data);
      if (out.includes(`at ${place}\n`)) resolve();
    });
  });
  const early = exited.then(() => {
    throw new Error(`the writer ended before ${place}: ${err}`);
  });
  early.catch(() => {}); // it ends in any case, when it is killed
  await Promise.race([reached, early]);
  await meanwhile?.(child.pid!);
  child.kill('SIGKILL');
  await exited;
}

test.each(['begun', 'in-layer', 'after-layer', 'in-staged', 'before-publish', 'before-commit'])(
  'killed at %s there is no point, and the rest can be cleared and written over',
  async (place) => {
    const path = await tempDir();
    await killAt(path, place);
    await using store = await directoryStore(path);
    const repository = await openRepository(store, { create: false });
    expect(await repository.list()).toEqual([]);

    const temps = await readdir(join(path, '.tmp'));
    expect(temps.length).toBe(['in-layer', 'in-staged', 'before-publish'].includes(place) ? 1 : 0);
    expect(await store.removeAbandoned()).toEqual([]); // too young to be called abandoned
    expect(await store.removeAbandoned({ olderThanMs: -1000 })).toEqual(temps);

    const { ok, points, orphans } = await repository.verify('all');
    expect({ ok, points }).toEqual({ ok: true, points: [] });
    const lease = await repository.inspectLease(VM);
    expect(lease).toMatchObject({ state: 'abandoned', purpose: 'write', holder: { hostname: hostname() } });
    const { names } = await store.list('vms/');
    expect(orphans).toEqual(names.filter((name) => !name.includes('/leases/')));
    await makePoint(repository, patterned(MIB));
    expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
    expect(await repository.list()).toHaveLength(1);
  },
);

test('killed after the commit the point is there, whole', async () => {
  const path = await tempDir();
  await killAt(path, 'after-commit');
  const repository = await openRepository(await directoryStore(path), { create: false });
  const report = await repository.verify('all', { level: 'content' });
  expect(report).toMatchObject({ ok: true, orphans: [] });
  expect(report.points).toHaveLength(1);
});

test('while another process writes a VM nobody else does, and whoever waits goes on when it is gone', async () => {
  const path = await tempDir();
  let waiting: Promise<PointWriter> | undefined;
  await killAt(path, 'in-layer', async (pid) => {
    const repository = await openRepository(await directoryStore(path));
    await expect(repository.begin(VM, 'full')).rejects.toMatchObject({
      code: 'LEASE_HELD',
      facts: { holder: { pid } },
    });
    waiting = repository.begin(VM, 'full', { waitMs: 60_000 });
  });
  await (await waiting!).abort();
  const repository = await openRepository(await directoryStore(path));
  await makePoint(repository, patterned(MIB));
  expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
});
