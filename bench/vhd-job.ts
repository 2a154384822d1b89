/** One piece of work in a process of its own; prints `{ seconds, peakMib }` of the work itself. Started by `vhd.ts`. */
import { writeRaw } from '../src/disk/index.ts';
import { checkVhd, openVhd, openVhdChain, openVhdLayers, vhdStream } from '../src/vhd/index.ts';
import { report } from './job.ts';

async function work(job: string | undefined, paths: readonly string[]): Promise<void> {
  const [first = '', second = ''] = paths;
  if (job === 'to-raw' || job === 'to-raw-synced') {
    await using disk = await openVhd(first);
    await writeRaw(disk, second, { durable: job === 'to-raw-synced' });
  } else if (job === 'merge') {
    await using chain = await openVhdLayers(paths);
    const { chunks, length } = await vhdStream(chain, { reuseMemory: true });
    let sent = 0;
    for await (const chunk of chunks) sent += chunk.byteLength;
    if (sent !== length) throw new Error(`${sent} bytes of ${length}`);
  } else if (job === 'check') {
    const { ok } = await checkVhd(first);
    if (!ok) throw new Error(`${first} is broken`);
  } else if (job === 'open-chain') {
    await using chain = await openVhdChain(first, { maxDepth: 1000 });
    if (chain.layers.length < 2) throw new Error('no chain');
  } else throw new Error(`no job "${job}"`);
}

const [job, ...paths] = process.argv.slice(2);
await report(() => work(job, paths));
