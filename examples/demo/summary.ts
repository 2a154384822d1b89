import { join, relative } from 'node:path';
import { type BackupResult, directoryStore, type Manifest, openRepository, type RestoreResult } from 'xen-backup-sdk';
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
export async function printSummary(
  rows: readonly DemoRow[],
  folder: string,
  { ext4 }: { readonly ext4: boolean },
): Promise<void> {
  console.log(`\n${table(rows)}\n`);
  const { rss } = process.memoryUsage();
  console.log(`peak memory: ${formatBytes(process.resourceUsage().maxRSS * 1024)} (now ${formatBytes(rss)})\n`);
  const layers = await firstDiskLayers(folder, rows);
  const [base] = layers;
  const chain = layers.at(-1);
  if (base === undefined || chain === undefined) return;
  console.log(`The backup lies in ${relative(process.cwd(), folder) || '.'} and opens without this library:\n`);
  console.log(`  qemu-img info ${base}`);
  console.log(`  vhdiinfo ${chain}`);
  console.log(`  7z t ${chain}   # the whole chain, through its parents`);
  // A guest's disk has a partition table as a rule; the simulated one is a file system and nothing else.
  const check = ext4 ? ' && e2fsck -fn full.img' : '';
  if (!base.includes('-full-')) return;
  console.log(`  qemu-img convert -f vpc -O raw ${base} full.img${check}\n`);
}

/** The VHDs that hold the first disk of the newest point shown, root first, as paths to type. */
async function firstDiskLayers(folder: string, rows: readonly DemoRow[]): Promise<string[]> {
  const repository = await openRepository(await directoryStore(folder), { create: false });
  const shown = rows.map(({ point }) => point).sort();
  const newest = (await repository.list()).find(({ point }) => point === shown.at(-1));
  if (newest === undefined) return [];
  const points = await repository.chain(newest);
  const first = points[0]?.disks.find(({ format }) => format === 'vhd');
  return points.flatMap(({ vm, disks }) =>
    disks
      .filter(({ vdiUuid, file }) => vdiUuid === first?.vdiUuid && file !== undefined)
      .map(({ file }) => join(relative(process.cwd(), folder), 'vms', vm.uuid, file!)),
  );
}
