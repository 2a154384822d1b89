/**
 * How fast disks are read over NBD, beside nbdcopy and the classic way. Ours is a process of its own, bundled as it is
 * shipped; its time is that of the work from connecting to closing, nbdcopy's that of its process. All figures are for
 * data that is read into buffers and thrown away: few of them, which stay in the cache of a core. Options:
 * `--size <MiB>` (2048), `--runs <n>` (5), `--json`, `--only <part of a name>`. Needs nbdkit, nbdcopy and openssl.
 */
import { randomFillSync } from 'node:crypto';
import { mkdir, open } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { nbdkit } from '../test/nbd-protocol/real-servers.ts';
import { makePki } from '../test/support/certificates.ts';
import { makeTempDir, type TempDir } from '../test/support/temp-dir.ts';
import { bundleJob } from './bundle.ts';
import { type Comparison, compare, timeOf } from './compare.ts';
import { type JobReport, runJob } from './job.ts';

const MIB = 1024 * 1024;
const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2048' },
    runs: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const sizeMib = Number(values.size);
const options = { runs: Number(values.runs), json: values.json };

/** What a bench is handed: a folder of its own, and how to run our job. */
interface Bench {
  readonly dir: TempDir;
  job(...args: string[]): Promise<JobReport>;
}

type Run = (bench: Bench) => Promise<void>;

const rate = (seconds: number) => sizeMib / seconds;
const show = (comparison: Comparison) => compare(comparison, options);

async function plain({ job }: Bench, bench: string, tcp: boolean): Promise<void> {
  await using server = await nbdkit(['pattern', `${sizeMib}M`], { tcp });
  const classic = { 'concat of chunks': async () => rate((await job('classic', '', server.socketPath)).seconds) };
  await show({
    bench,
    unit: 'MiB/s',
    better: 'more',
    ours: async () => rate((await job('into', server.uri, ...(tcp ? ['2', '2', '512'] : ['3', '2', '1024']))).seconds),
    peers: { nbdcopy: async () => rate(await timeOf('nbdcopy', [server.uri, 'null:'])), ...(tcp ? {} : classic) },
  });
}

async function overTls({ dir, job }: Bench): Promise<void> {
  await mkdir(dir.file('pki'));
  const pki = await makePki(dir.file('pki'));
  const args = ['--tls=require', `--tls-certificates=${pki.directory}`, 'pattern', `${sizeMib}M`];
  await using server = await nbdkit(args, { tcp: true });
  process.env['BENCH_CA'] = `${pki.directory}/ca-cert.pem`;
  const theirs = `nbds://localhost:${server.port}/?tls-certificates=${pki.directory}`;
  await show({
    bench: 'read over TLS',
    unit: 'MiB/s',
    better: 'more',
    ours: async () => rate((await job('into', `nbds://localhost:${server.port}`, '2', '2', '1024')).seconds),
    peers: { nbdcopy: async () => rate(await timeOf('nbdcopy', [theirs, 'null:'])) },
  });
  delete process.env['BENCH_CA'];
}

/** Each reply comes 10 ms late: with 16 requests in flight, 16 replies come every 10 ms. */
async function latency({ job }: Bench): Promise<void> {
  const reads = 1024;
  await using server = await nbdkit(['--filter=delay', 'pattern', '16G', 'rdelay=10ms']);
  await show({
    bench: '64 KiB reads, replies 10 ms late',
    unit: 's',
    better: 'less',
    ours: async () => (await job('scattered', server.uri, String(reads))).seconds,
    peers: { '16 in flight at best': async () => (reads / 16) * 0.01 },
  });
}

/** 256 MiB of data, scattered over 1 TiB or in one piece. */
async function sparse({ dir, job }: Bench): Promise<void> {
  const dataMib = 256;
  await makeData(dir.file('dense'), dataMib, 1);
  await makeData(dir.file('sparse'), dataMib, 4096);
  await using dense = await nbdkit(['file', dir.file('dense')]);
  await using thin = await nbdkit(['file', dir.file('sparse')]);
  const read = (uri: string) => async () => (await job('data', uri, String(dataMib * MIB))).seconds;
  await show({
    bench: '256 MiB of data in 1 TiB',
    unit: 's',
    better: 'less',
    ours: read(thin.uri),
    peers: { 'the same data dense': read(dense.uri) },
  });
}

/** A file with one MiB of random bytes in each `every` MiB. */
async function makeData(path: string, dataMib: number, every: number): Promise<void> {
  await using file = await open(path, 'wx');
  const noise = randomFillSync(new Uint8Array(MIB));
  for (let i = 0; i < dataMib; i++) await file.write(noise, 0, MIB, i * every * MIB);
  await file.truncate(dataMib * every * MIB);
}

async function memory({ job }: Bench): Promise<void> {
  await using server = await nbdkit(['pattern', `${sizeMib}M`], { tcp: true });
  await show({
    bench: 'peak memory of a read',
    unit: 'MiB',
    better: 'less',
    ours: async () => (await job('into', server.uri, '1', '4', '1024')).peakMib,
  });
}

const BENCHES: Readonly<Record<string, Run>> = {
  tcp: (bench) => plain(bench, 'read over TCP', true),
  unix: (bench) => plain(bench, 'read over a Unix socket', false),
  tls: overTls,
  latency,
  sparse,
  memory,
};

for (const [name, run] of Object.entries(BENCHES)) {
  if (!name.includes(values.only)) continue;
  await using dir = await makeTempDir();
  const script = await bundleJob('nbd-job', dir.path);
  await run({ dir, job: (...args) => runJob(script, args) });
}
