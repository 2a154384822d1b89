/**
 * How fast VHDs are read, merged and checked, beside other programs. All work is done by processes of its own, from
 * start to end, unless said otherwise; files are in the page cache. Options: `--size <MiB>` of data (1024), `--runs <n>`
 * (5), `--json`, `--only <part of a name>`. Needs qemu-img, and about four times the size on the disk of temporary files.
 */
import { rm } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { openVhdLayers } from '../src/vhd/index.ts';
import { makeTempDir, type TempDir } from '../test/support/temp-dir.ts';
import { bundleJob } from './bundle.ts';
import { type Comparison, compare, timeOf } from './compare.ts';
import { type JobReport, runJob } from './job.ts';
import { makeBase, makeChain, makeDelta, makeHuge, makePlain } from './vhd-files.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    runs: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const dataMib = Math.max(Math.ceil(Number(values.size) / 64) * 64, 64);
const options = { runs: Number(values.runs), json: values.json };

const jobs = await makeTempDir();
const script = await bundleJob('vhd-job', jobs.path);
const ours = (job: string, ...paths: string[]): Promise<JobReport> => runJob(script, [job, ...paths]);

/** A disk four times as large as its data becomes a sparse raw image, durable at the end or not. */
async function toRaw(dir: TempDir, durable: boolean): Promise<Comparison> {
  const source = dir.file('source.vhd');
  await makeBase(source, 4 * dataMib * MIB, 4);
  const raw = dir.file('out.raw');
  const fresh = async (work: () => Promise<number>) => {
    await rm(raw, { force: true });
    return dataMib / (await work());
  };
  const convert = (...more: string[]) =>
    timeOf('qemu-img', ['convert', ...more, '-f', 'vpc', '-O', 'raw', source, raw]);
  return {
    bench: durable ? 'VHD to sparse raw, synced' : 'VHD to sparse raw',
    unit: 'MiB/s',
    better: 'more',
    ours: () => fresh(async () => (await ours(durable ? 'to-raw-synced' : 'to-raw', source, raw)).whole),
    peers: durable
      ? {
          'qemu-img convert, sync': () =>
            fresh(async () => (await convert('-t', 'writeback')) + (await timeOf('sync', [raw]))),
        }
      : { 'qemu-img convert': () => fresh(convert) },
  };
}

/** A full disk and five deltas, each an eighth of it, become one full as a stream to nowhere; without the start of the process. */
async function merge(dir: TempDir, bench: string, granule: number): Promise<Comparison> {
  const size = dataMib * MIB;
  const paths = [dir.file('0.vhd')];
  let uuid = await makeBase(paths[0]!, size, 1);
  for (let i = 1; i <= 5; i++) {
    paths.push(dir.file(`${i}.vhd`));
    const parent = { uuid, name: `${i - 1}.vhd` };
    uuid = await makeDelta(paths[i]!, size, parent, { granule, every: 8, first: (3 * i) % 8 });
  }
  await makePlain(dir.file('plain'), await bytesToRead(paths));
  return {
    bench,
    unit: 'MiB/s',
    better: 'more',
    ours: async () => dataMib / (await ours('merge', ...paths)).seconds,
    peers: { 'cat of what must be read': async () => dataMib / (await timeOf('cat', [dir.file('plain')])) },
  };
}

/** What the chain as one disk consists of, and each file's bitmaps and table. */
async function bytesToRead(paths: readonly string[]): Promise<number> {
  await using chain = await openVhdLayers(paths);
  let bytes = 0;
  for await (const { kind, length } of chain.extents()) if (kind === 'data') bytes += length;
  for (const { blockIndexes, header } of chain.layers) {
    bytes += blockIndexes!.length * 512 + header!.maxTableEntries * 4;
  }
  return bytes;
}

/** The structure of the largest VHD there is, with every block allocated. */
async function huge(dir: TempDir): Promise<string> {
  await makeHuge(dir.file('huge.vhd'), 2040 * GIB);
  return dir.file('huge.vhd');
}

async function checkTime(dir: TempDir): Promise<Comparison> {
  const path = await huge(dir);
  const bench = 'check of 2040 GiB, full table';
  return { bench, unit: 's', better: 'less', ours: async () => (await ours('check', path)).whole };
}

async function checkMemory(dir: TempDir): Promise<Comparison> {
  const path = await huge(dir);
  const bench = 'check of 2040 GiB, peak memory';
  return { bench, unit: 'MiB', better: 'less', ours: async () => (await ours('check', path)).peakMib };
}

/** Without the start of the process. */
async function openChain(dir: TempDir): Promise<Comparison> {
  const leaf = await makeChain(dir.path, 100);
  const bench = 'opening a chain of 100';
  return { bench, unit: 'ms', better: 'less', ours: async () => (await ours('open-chain', leaf)).seconds * 1000 };
}

const BENCHES: Readonly<Record<string, (dir: TempDir) => Promise<Comparison>>> = {
  'to-raw': (dir) => toRaw(dir, false),
  'to-raw-synced': (dir) => toRaw(dir, true),
  merge: (dir) => merge(dir, 'merge, whole blocks', 2 * MIB),
  'merge-partial': (dir) => merge(dir, 'merge, 64 KiB runs', 64 * 1024),
  'check-time': checkTime,
  'check-memory': checkMemory,
  'open-chain': openChain,
};

for (const [name, prepare] of Object.entries(BENCHES)) {
  if (!name.includes(values.only)) continue;
  await using dir = await makeTempDir();
  await compare(await prepare(dir), options);
}
await jobs[Symbol.asyncDispose]();
