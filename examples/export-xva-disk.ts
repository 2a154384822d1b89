// Takes one disk out of an archive, compressed or not, in one pass: for `xe vm-export` files that are too large to unpack.
//
//   node examples/export-xva-disk.ts <archive> <device: 0, 1 …> <target.vhd or target.raw>
import { createReadStream } from 'node:fs';
import { readXvaStream, writeRaw, writeVhd } from 'xen-backup-sdk';
import { readArguments } from './usage.ts';

const usage = 'export-xva-disk.ts <archive> <device: 0, 1 …> <target.vhd or target.raw>';
const [archive = '', device = '', target = ''] = readArguments(usage, { count: [3, 3] }).positionals;
const xva = await readXvaStream(createReadStream(archive, { highWaterMark: 1024 * 1024 }));
let isFound = false;
for await (const { disk, blocks } of xva.contents) {
  if (disk.device !== device) continue; // its data is passed over
  isFound = true;
  const { size, name } = disk;
  if (target.endsWith('.vhd')) await writeVhd({ size, blocks }, target);
  else await writeRaw(blocks, target, { size });
  console.log(`${target}: ${name}, ${size} bytes`);
}
if (!isFound) throw new Error(`${archive} has no disk ${device}`);
