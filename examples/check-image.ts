// Checks VHDs and XVAs to the last byte, and tells what is wrong and where. Exit code 1 when something is.
//
//   node examples/check-image.ts <file> …
import { checkVhd, checkXva } from 'xen-backup-sdk';
import { formatOf } from './open-image.ts';
import { readArguments } from './usage.ts';

const { positionals: paths } = readArguments('check-image.ts <file> …', { count: [1, Number.POSITIVE_INFINITY] });
for (const path of paths) {
  try {
    const isVhd = path.endsWith('.vhd') || (await formatOf(path)) === 'vhd';
    const { ok, findings } = isVhd ? await checkVhd(path, { level: 'content' }) : await checkXva(path);
    console.log(`${path}: ${isVhd ? 'VHD' : 'XVA'}, ${ok ? 'whole' : 'DAMAGED'}`);
    for (const { code, message } of findings) console.log(`  ${code}: ${message}`);
    if (!ok) process.exitCode = 1;
  } catch (error) {
    console.log(`${path}: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
