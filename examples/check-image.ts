// Checks VHDs and XVAs to the last byte, and tells what is wrong and where. Exit code 1 when something is.
//
//   node examples/check-image.ts <file> …
import { checkVhd, checkXva, FormatError } from 'xen-backup-sdk';

/** A VHD has its own checks; everything else may be an archive, compressed or not. */
async function check(path: string) {
  try {
    const report = await checkVhd(path, { level: 'content' });
    if (report.summary !== undefined || path.endsWith('.vhd')) return { format: 'VHD', ...report };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error; // it is another format
  }
  return { format: 'XVA', ...(await checkXva(path)) };
}

for (const path of process.argv.slice(2)) {
  const { format, ok, findings } = await check(path);
  console.log(`${path}: ${format}, ${ok ? 'whole' : 'DAMAGED'}`);
  for (const { code, message } of findings) console.log(`  ${code}: ${message}`);
  if (!ok) process.exitCode = 1;
}
