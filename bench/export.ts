/**
 * How fast a whole VM comes into a repository, checked and hashed on the way, beside `curl` of the same address into a
 * file, which does neither. The simulated host is a process of its own, and takes most of the time of both.
 * Options: `--size <MiB>` (1024), `--runs <n>` (5), `--json`. Needs curl.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { bundleProgram } from '../test/support/run-child.ts';
import { makeTempDir } from '../test/support/temp-dir.ts';
import { compare, timeOf } from './compare.ts';
import { type JobReport, runJob } from './job.ts';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    runs: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const sizeMib = Number(values.size);
const options = { runs: Number(values.runs), json: values.json };

await using dir = await makeTempDir();
const bundle = async (name: string) => {
  const script = dir.file(`${name}.mjs`);
  await bundleProgram(new URL(`./${name}.ts`, import.meta.url).pathname, script);
  return script;
};
const child = spawn(process.execPath, [await bundle('export-host'), values.size], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
const pool = JSON.parse(line) as Record<'url' | 'username' | 'password' | 'certificate' | 'vm', string>;
const job = await bundle('export-job');
const rate = (seconds: number) => sizeMib / seconds;

async function ours(): Promise<JobReport> {
  const folder = dir.file('repository');
  const result = await runJob(job, [JSON.stringify({ ...pool, folder })]);
  await rm(folder, { recursive: true });
  return result;
}

async function curl(): Promise<number> {
  const address = `${pool.url}/export?uuid=${pool.vm}`;
  const args = ['-sk', '-u', `${pool.username}:${pool.password}`, '-o', dir.file('curl.xva'), address];
  const seconds = await timeOf('curl', args);
  await rm(dir.file('curl.xva'));
  return rate(seconds);
}

const peaks: number[] = [];
const timed = async () => {
  const { seconds, peakMib } = await ours();
  peaks.push(peakMib);
  return rate(seconds);
};
await compare(
  { bench: 'export into a repository', unit: 'MiB/s', better: 'more', ours: timed, peers: { curl } },
  options,
);
const peak = async () => Math.max(...peaks);
await compare({ bench: 'export, peak memory', unit: 'MiB', better: 'less', ours: peak }, { ...options, runs: 1 });
child.stdin.end();
await once(child, 'close');
