import { readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { BackupResult, Manifest, RestoreResult } from 'xen-backup-sdk';
import { formatBytes, table } from 'xen-backup-sdk/console';

export interface DemoRow {
  readonly point: string;
  readonly type: string;
  readonly disk: string;
  readonly 'virtual size': string;
  readonly 'bytes moved': string;
  readonly seconds: string;
  readonly verified: 'yes' | 'DIFFERENT' | '';
}

export function backupRows({ manifest, report }: BackupResult): DemoRow[] {
  return report.disks.map(({ name, mode, size, bytesMoved, durationMs }) => ({
    point: manifest.point,
    type: mode,
    disk: name,
    'virtual size': formatBytes(size),
    'bytes moved': formatBytes(bytesMoved),
    seconds: (durationMs / 1000).toFixed(2),
    verified: '',
  }));
}

export function restoreRows(
  manifest: Manifest,
  { report }: RestoreResult,
  equal: ReadonlyMap<string, boolean>,
): DemoRow[] {
  return report.disks.map(({ vdiUuid, name, size, bytesMoved, durationMs }) => ({
    point: manifest.point,
    type: 'restore',
    disk: name,
    'virtual size': formatBytes(size),
    'bytes moved': formatBytes(bytesMoved),
    seconds: (durationMs / 1000).toFixed(2),
    verified: equal.get(vdiUuid) === true ? 'yes' : 'DIFFERENT',
  }));
}

/** The table, and how to open what was left with other people's tools. */
export async function printSummary(rows: readonly DemoRow[], folder: string): Promise<void> {
  console.log(`\n${table(rows)}\n`);
  const { rss } = process.memoryUsage();
  console.log(`peak memory: ${formatBytes(process.resourceUsage().maxRSS * 1024)} (now ${formatBytes(rss)})\n`);
  const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.vhd')).sort();
  const [base] = files.filter((name) => name.includes('-full-'));
  if (base === undefined) return;
  const here = relative(process.cwd(), folder) || '.';
  const chain = join(here, files.filter((name) => name.startsWith(base.slice(0, base.lastIndexOf('/')))).at(-1)!);
  console.log(`The backup lies in ${here} and opens without this library:\n`);
  console.log(`  qemu-img info ${join(here, base)}`);
  console.log(`  vhdiinfo ${chain}`);
  console.log(`  7z t ${chain}            # the whole chain, through its parents`);
  console.log(`  qemu-img convert -f vpc -O raw ${join(here, base)} full.img && e2fsck -fn full.img\n`);
}
