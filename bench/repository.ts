/**
 * A large repository in a folder, in this process: the names of all points, and the plan of a prune. Options: `--vms <n>`
 * (1000), `--points <n>` of each (100), `--runs <n>` (3), `--json`. Makes a small file for each point.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeTempDir } from '../test/support/temp-dir.ts';
import { bundleJob } from './bundle.ts';
import { compare } from './compare.ts';
import { runJob } from './job.ts';
import { manifestOf } from './repository-files.ts';

const { values } = parseArgs({
  options: {
    vms: { type: 'string', default: '1000' },
    points: { type: 'string', default: '100' },
    runs: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
const [vms, points] = [Number(values.vms), Number(values.points)];
const options = { runs: Number(values.runs), json: values.json };

await using dir = await makeTempDir();
const script = await bundleJob('repository-job', dir.path);
const folder = dir.file('repository');
await runJob(script, ['make', folder]);
for (let vm = 0; vm < vms; vm++) {
  for (let index = 0; index < points; index++) {
    const { name, bytes } = manifestOf(vm, index);
    const path = join(folder, name);
    if (index === 0) await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, bytes);
  }
}
for (const [job, what] of [
  ['list', 'names'],
  ['plan', 'plan of a prune'],
] as const) {
  let peakMib = 0;
  const ours = async () => {
    const report = await runJob(script, [job, folder]);
    peakMib = Math.max(peakMib, report.peakMib);
    return report.seconds;
  };
  const bench = `${what} of ${vms * points} points`;
  await compare({ bench, unit: 's', better: 'less', ours }, options);
  await compare(
    { bench: `${bench}: memory`, unit: 'MiB', better: 'less', ours: async () => peakMib },
    { ...options, runs: 1 },
  );
}
