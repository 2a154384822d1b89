import type { ProgressEvent } from '../core/index.ts';
import type { DiskProgress } from './disk-progress.ts';
import { formatBytes, formatDuration } from './format.ts';
import { cutText, plainText, textWidth } from './plain-text.ts';

const LABEL_WIDTH = 24;
const BAR_WIDTH = 20;

/** One line about an event that is worth keeping on the screen; `undefined` for the others. */
export function eventLine(event: ProgressEvent): string | undefined {
  switch (event.kind) {
    case 'stage':
      return line(event.run, event.vmUuid === undefined ? event.stage : `${event.stage} (VM ${event.vmUuid})`);
    case 'disk-started': {
      const toMove = event.totalBytes === undefined ? '' : `, ${formatBytes(event.totalBytes)} to move`;
      return line(event.run, `${event.label}: ${event.mode}, ${formatBytes(event.size)}${toMove}`);
    }
    case 'fell-back':
      return line(event.run, `${event.subject}: fell back from ${event.from} to ${event.to}: ${event.reason}`);
    case 'warning':
      return line(event.run, `warning ${event.code}: ${event.message}`);
    case 'retrying': {
      const when = formatDuration(event.waitMs);
      return line(event.run, `${event.subject}: try ${event.attempt} failed, next in ${when}: ${event.reason}`);
    }
    default:
      return undefined; // kinds of a later version, too
  }
}

/** How far a disk is, without a bar. */
export function percentLine(run: string, disk: DiskProgress): string {
  return line(run, `${disk.label}: ${amount(disk).trimStart()}`);
}

/** What a disk took. */
export function finishedLine(run: string, disk: DiskProgress, movedBytes: number, atMs: number): string {
  const tookMs = Math.max(0, atMs - disk.startedMs);
  const rate = tookMs === 0 ? '' : `, ${formatBytes((movedBytes * 1000) / tookMs)}/s`;
  return line(run, `${disk.label}: done, ${formatBytes(movedBytes)} in ${formatDuration(tookMs)}${rate}`);
}

/** One disk as a bar with throughput and remaining time, at most `columns` wide. */
export function barLine(disk: DiskProgress, atMs: number, columns: number): string {
  const label = cutText(plainText(disk.label), LABEL_WIDTH);
  const parts = [label + ' '.repeat(LABEL_WIDTH - textWidth(label))];
  if (disk.fraction !== undefined) parts.push(bar(disk.fraction));
  parts.push(amount(disk));
  const rate = disk.rate(atMs);
  if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
  const remainingMs = disk.remainingMs(atMs);
  if (remainingMs !== undefined) parts.push(`${formatDuration(remainingMs)} left`);
  return cutText(parts.join('  '), columns);
}

function bar(fraction: number): string {
  const full = Math.floor(fraction * BAR_WIDTH);
  return `[${'#'.repeat(full)}${'-'.repeat(BAR_WIDTH - full)}]`;
}

function amount({ fraction, movedBytes, totalBytes }: DiskProgress): string {
  if (fraction === undefined || totalBytes === undefined) return `${formatBytes(movedBytes)} moved`;
  const percent = String(Math.floor(fraction * 100)).padStart(3);
  return `${percent} % (${formatBytes(movedBytes)} of ${formatBytes(totalBytes)})`;
}

function line(run: string, text: string): string {
  return plainText(`${run}: ${text}`);
}
