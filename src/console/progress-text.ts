import type { ProgressEvent } from '../core/index.ts';
import type { DiskProgress } from './disk-progress.ts';
import { formatBytes, formatDuration } from './format.ts';
import { cutText, plainText, textWidth } from './plain-text.ts';

/** What stands beside label and bar at its widest, gaps included. */
const NUMBERS_WIDTH = 51;

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
    case 'waiting': {
      const most = formatDuration(event.waitMs);
      return line(event.run, `waits up to ${most} for ${event.reason} (VM ${event.vmUuid})`);
    }
    default:
      return undefined; // kinds of a later version, too
  }
}

/** How far a disk is, without a bar. */
export function percentLine(run: string, disk: DiskProgress): string {
  return line(run, `${disk.label}: ${amount(disk)}`);
}

/** What a disk took. */
export function finishedLine(run: string, disk: DiskProgress, movedBytes: number, atMs: number): string {
  const tookMs = Math.max(0, atMs - disk.startedMs);
  const rate = tookMs === 0 ? '' : `, ${formatBytes((movedBytes * 1000) / tookMs)}/s`;
  return line(run, `${disk.label}: done, ${formatBytes(movedBytes)} in ${formatDuration(tookMs)}${rate}`);
}

/** One disk as a bar with throughput and remaining time, at most `columns` wide; 80 are enough for all of it. */
export function barLine(disk: DiskProgress, atMs: number, columns: number): string {
  const labelWidth = columns < 100 ? 16 : 24;
  const barWidth = Math.max(6, Math.min(24, columns - labelWidth - NUMBERS_WIDTH));
  const label = cutText(plainText(disk.label), labelWidth);
  const parts = [label + ' '.repeat(labelWidth - textWidth(label))];
  if (disk.fraction !== undefined) parts.push(bar(disk.fraction, barWidth));
  parts.push(shortAmount(disk));
  const rate = disk.rate(atMs);
  if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
  const remainingMs = disk.remainingMs(atMs);
  if (remainingMs !== undefined) parts.push(`${formatDuration(remainingMs)} left`);
  return cutText(parts.join('  '), columns);
}

function bar(fraction: number, width: number): string {
  const full = Math.floor(fraction * width);
  return `[${'#'.repeat(full)}${'-'.repeat(width - full)}]`;
}

function shortAmount({ fraction, movedBytes, totalBytes }: DiskProgress): string {
  if (fraction === undefined || totalBytes === undefined) return `${formatBytes(movedBytes)} moved`;
  return `${percent(fraction).padStart(5)} of ${formatBytes(totalBytes)}`;
}

function amount({ fraction, movedBytes, totalBytes }: DiskProgress): string {
  if (fraction === undefined || totalBytes === undefined) return `${formatBytes(movedBytes)} moved`;
  return `${percent(fraction)} (${formatBytes(movedBytes)} of ${formatBytes(totalBytes)})`;
}

function percent(fraction: number): string {
  return `${Math.floor(fraction * 100)} %`;
}

function line(run: string, text: string): string {
  return plainText(`${run}: ${text}`);
}
