/**
 * How fast an XVA is checked, beside programs that only read or hash it. Ours is a process of its own, bundled as it is
 * shipped; its time is that of the work, the others' that of their processes. The archive lies in the page cache.
 * Options: `--size <MiB>` (2048), `--runs <n>` (5), `--json`, `--only <part of a name>`. Needs openssl.
 */
import { randomFillSync } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { type Disk, memoryDisk } from '../src/disk/index.ts';
import { type OvaMetadata, type XvaChecksum, xvaStream } from '../src/xva/index.ts';
import { makeTempDir } from '../test/support/temp-dir.ts';
import { bundleJob } from './bundle.ts';
import { compare, timeOf } from './compare.ts';
import { runJob } from './job.ts';

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

/** A disk of random bytes, all of them there. */
function noiseDisk(size: number): Disk {
  const noise = randomFillSync(new Uint8Array(8 * MIB));
  return {
    ...memoryDisk(new Uint8Array(0)),
    size,
    async *extents() {
      yield { offset: 0, length: size, kind: 'data' };
    },
    async readInto(target, offset) {
      const at = (offset * 7) % (noise.byteLength - target.byteLength);
      target.set(noise.subarray(at, at + target.byteLength));
    },
  };
}

function metadataOf(size: number): OvaMetadata {
  const vbd = { VM: 'Ref:1', VDI: 'Ref:3', userdevice: '0', type: 'Disk' };
  return {
    version: { export_vsn: '2' },
    objects: [
      { class: 'VM', id: 'Ref:1', snapshot: { name_label: 'bench' } },
      { class: 'VBD', id: 'Ref:2', snapshot: vbd },
      { class: 'VDI', id: 'Ref:3', snapshot: { virtual_size: String(size) } },
    ],
  };
}

async function makeArchive(path: string, checksum: XvaChecksum): Promise<void> {
  const size = sizeMib * MIB;
  const contents = { metadata: metadataOf(size), disks: [{ id: 'Ref:3', disk: noiseDisk(size) }] };
  const { chunks } = await xvaStream(contents, { checksum });
  await pipeline(Readable.from(chunks), createWriteStream(path));
}

const rate = (seconds: number) => sizeMib / seconds;
await using dir = await makeTempDir();
const script = await bundleJob('xva-job', dir.path);
for (const checksum of ['xxhash', 'sha1'] as const) {
  const archive = dir.file(`${checksum}.xva`);
  const names = [`check, ${checksum}`, ...(checksum === 'xxhash' ? ['check, peak memory'] : [])];
  if (!names.some((name) => name.includes(values.only))) continue;
  await makeArchive(archive, checksum);
  const peers =
    checksum === 'xxhash'
      ? { cat: async () => rate(await timeOf('cat', [archive])) }
      : { 'openssl sha1': async () => rate(await timeOf('openssl', ['dgst', '-sha1', archive])) };
  const ours = async () => rate((await runJob(script, [archive])).seconds);
  await compare({ bench: `check, ${checksum}`, unit: 'MiB/s', better: 'more', ours, peers }, options);
  if (checksum !== 'xxhash') continue;
  const peak = async () => (await runJob(script, [archive])).peakMib;
  await compare({ bench: 'check, peak memory', unit: 'MiB', better: 'less', ours: peak }, options);
}
