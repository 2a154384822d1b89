/** One piece of work in a process of its own; prints `{ seconds, peakMib }` of the work itself. Started by `nbd.ts`. */
import { readFileSync } from 'node:fs';
import { readBlocks } from '../src/disk/index.ts';
import { connectNbd, type NbdOptions } from '../src/nbd-protocol/index.ts';
import { report } from './job.ts';
import { readClassically } from './nbd-classic.ts';

const KIB = 1024;

/** Reads the whole export into some buffers, over and over: what nbdcopy does with `null:`. */
async function intoBuffers(uri: string, buffers: number, size: number, options: NbdOptions): Promise<void> {
  await using disk = await connectNbd(uri, options);
  let next = 0;
  const reader = async () => {
    const buffer = new Uint8Array(size);
    while (next < disk.size) {
      const offset = next;
      next += size;
      await disk.readInto(buffer.subarray(0, Math.min(size, disk.size - offset)), offset);
    }
  };
  await Promise.all(Array.from({ length: buffers }, reader));
}

/** Reads only what holds data, as a copy does, in blocks that belong to whoever gets them. */
async function dataBlocks(uri: string, expected: number): Promise<void> {
  await using disk = await connectNbd(uri);
  let bytes = 0;
  for await (const { data } of readBlocks(disk)) bytes += data.byteLength;
  if (bytes !== expected) throw new Error(`${bytes} bytes of ${expected}`);
}

/** Reads `count` pieces of 64 KiB far from one another, all asked for at once: what is in flight is up to the client. */
async function scattered(uri: string, count: number): Promise<void> {
  await using disk = await connectNbd(uri);
  const step = Math.floor(disk.size / count / KIB) * KIB;
  await Promise.all(Array.from({ length: count }, (_, i) => disk.readInto(new Uint8Array(64 * KIB), i * step)));
}

const [job, uri = '', argument = '', buffers = '', kib = ''] = process.argv.slice(2);
const tls = process.env['BENCH_CA'] === undefined ? undefined : { ca: readFileSync(process.env['BENCH_CA'], 'utf8') };
await report(async () => {
  if (job === 'into')
    await intoBuffers(uri, Number(buffers), Number(kib) * KIB, { connections: Number(argument), tls });
  else if (job === 'data') await dataBlocks(uri, Number(argument));
  else if (job === 'scattered') await scattered(uri, Number(argument));
  else if (job === 'classic') await readClassically(argument);
  else throw new Error(`no job "${job}"`);
});
