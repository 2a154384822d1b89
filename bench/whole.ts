/**
 * Whole runs of the strategies against a simulated host in a process of its own, which takes most of the time; every run of
 * ours is a process of its own, too. Options: `--runs <n>` (3), `--json`, `--only <part of a name>`, `--data <GiB>` (4) of the
 * full. Needs curl, about 8 GiB of memory and 16 GiB on the disk of temporary files.
 */
import { rm } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { bundleProgram } from '../test/support/run-child.ts';
import { makeTempDir } from '../test/support/temp-dir.ts';
import { compare, timeOf } from './compare.ts';
import { type HostProcess, type MadeVm, startHostProcess } from './host-process.ts';
import { type JobReport, runJob } from './job.ts';
import type { WholeOrder } from './whole-job.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    data: { type: 'string', default: '4' },
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const options = { runs: Number(values.runs), json: values.json };
const dataMib = Number(values.data) * 1024;

await using dir = await makeTempDir();
const bundle = async (name: string) => {
  const script = dir.file(`${name}.mjs`);
  await bundleProgram(new URL(`./${name}.ts`, import.meta.url).pathname, script);
  return script;
};
const hostScript = await bundle('host');
const jobScript = await bundle('whole-job');
const folder = dir.file('repository');

const run = ({ address }: HostProcess, order: WholeOrder): Promise<JobReport> =>
  runJob(
    jobScript,
    [address, folder, order].map((part) => JSON.stringify(part)),
  );
const backUp = (host: HostProcess, vm: MadeVm, more: object = {}) =>
  run(host, { run: 'backup', options: { vm: vm.uuid, ...more } });
const forget = () => rm(folder, { recursive: true, force: true });
/** One figure that was taken already, printed as the others are. */
const tell = (bench: string, unit: string, number: number) =>
  compare({ bench, unit, better: 'less', ours: async () => number }, { ...options, runs: 1 });

/** A full of a sparse disk, checked, hashed, durable; `curl` of the same export into a file is neither. */
async function full(strategy: 'changed-blocks' | 'image'): Promise<void> {
  await using host = await startHostProcess(hostScript);
  const vm = await host.create('full', [8 * dataMib]);
  await host.fill({ disk: vm.disks[0]!, from: 0, mib: dataMib, run: 64, every: 512 });
  let peakMib = 0;
  const ours = async () => {
    await forget();
    const report = await backUp(host, vm, { strategy, mode: 'full', keepForIncremental: false });
    peakMib = Math.max(peakMib, report.peakMib);
    return dataMib / report.seconds;
  };
  const { url, username, password } = host.address;
  const address =
    strategy === 'image' ? `${url}/export?uuid=${vm.uuid}` : `${url}/export_raw_vdi?vdi=${vm.disks[0]}&format=vhd`;
  const curl = async () => {
    const file = dir.file('curl');
    const seconds = await timeOf('curl', ['-skf', '-u', `${username}:${password}`, '-o', file, address]);
    await rm(file);
    return dataMib / seconds;
  };
  const bench = `full, ${strategy}`;
  await compare({ bench, unit: 'MiB/s', better: 'more', ours, peers: { curl } }, options);
  await tell(`${bench}: peak memory`, 'MiB', peakMib);
}

/** 256 MiB changed, on a large disk and on a small one: what matters is what changed. */
async function increments(): Promise<void> {
  await using host = await startHostProcess(hostScript);
  await forget();
  const measured = async (gib: number) => {
    const vm = await host.create(`disk of ${gib} GiB`, [gib * 1024]);
    await host.fill({ disk: vm.disks[0]!, from: 0, mib: 64, run: 64, every: 64 });
    await backUp(host, vm);
    let peakMib = 0;
    const time = async () => {
      await host.fill({ disk: vm.disks[0]!, from: 0, mib: 256, run: 2, every: 16 });
      const report = await backUp(host, vm);
      peakMib = Math.max(peakMib, report.peakMib);
      return report.seconds;
    };
    return { time, peak: async () => peakMib };
  };
  const [small, large] = [await measured(8), await measured(1024)];
  const bench = '256 MiB changed of 1 TiB';
  await compare({ bench, unit: 's', better: 'less', ours: large.time, peers: { '8 GiB': small.time } }, options);
  const memory = { bench: 'the same: peak memory', unit: 'MiB', better: 'less' } as const;
  await compare({ ...memory, ours: large.peak, peers: { '8 GiB': small.peak } }, { ...options, runs: 1 });
}

/** A full and seven increments, merged while they stream to the host. */
async function restore(): Promise<void> {
  await using host = await startHostProcess(hostScript);
  await forget();
  const vm = await host.create('chain', [4096]);
  await host.fill({ disk: vm.disks[0]!, from: 0, mib: 1024, run: 64, every: 256 });
  await backUp(host, vm);
  for (let layer = 1; layer < 8; layer++) {
    await host.fill({ disk: vm.disks[0]!, from: layer * 32, mib: 128, run: 1, every: 16 });
    await backUp(host, vm);
  }
  let peakMib = 0;
  const ours = async () => {
    const report = await run(host, { run: 'restore', vm: vm.uuid });
    peakMib = Math.max(peakMib, report.peakMib);
    return report.seconds;
  };
  await compare({ bench: 'restore of a chain of 8, 1.9 GiB', unit: 's', better: 'less', ours }, options);
  await tell('restore: peak memory', 'MiB', peakMib);
}

/** Time for each disk of a VM, for each layer of a chain, for the size of a disk. */
async function growth(): Promise<void> {
  await using host = await startHostProcess(hostScript);
  for (const disks of [1, 10, 100]) {
    await forget();
    const vm = await host.create(
      `${disks} disks`,
      Array.from({ length: disks }, () => 64),
    );
    for (const disk of vm.disks) await host.fill({ disk, from: 0, mib: 8, run: 8, every: 8 });
    const { seconds, peakMib } = await backUp(host, vm);
    await tell(`full of ${disks} disks: each`, 's', seconds / disks);
    await tell(`full of ${disks} disks: peak memory`, 'MiB', peakMib);
  }
  await forget();
  const vm = await host.create('layers', [256]);
  let layers = 0;
  for (const wanted of [1, 10, 100]) {
    for (; layers < wanted; layers++) {
      await host.fill({ disk: vm.disks[0]!, from: layers, mib: 1, run: 1, every: 1 });
      await backUp(host, vm);
    }
    await host.fill({ disk: vm.disks[0]!, from: 200, mib: 1, run: 1, every: 1 });
    const increment = await backUp(host, vm);
    layers += 1;
    const restored = await run(host, { run: 'restore', vm: vm.uuid });
    await tell(`increment on ${wanted} layers`, 's', increment.seconds);
    await tell(`restore of ${layers} layers`, 's', restored.seconds);
    await tell(`restore of ${layers} layers: peak memory`, 'MiB', restored.peakMib);
  }
  for (const gib of [1, 32, 1024]) {
    await forget();
    const sized = await host.create(`${gib} GiB`, [gib * 1024]);
    await host.fill({ disk: sized.disks[0]!, from: 0, mib: 128, run: 8, every: 64 });
    const { seconds, peakMib } = await backUp(host, sized);
    await tell(`full of 128 MiB in ${gib} GiB`, 's', seconds);
    await tell(`the same: peak memory`, 'MiB', peakMib);
  }
}

const PARTS: Readonly<Record<string, () => Promise<void>>> = {
  full: () => full('changed-blocks'),
  image: () => full('image'),
  increments,
  restore,
  growth,
};
for (const [name, part] of Object.entries(PARTS)) if (name.includes(values.only)) await part();
