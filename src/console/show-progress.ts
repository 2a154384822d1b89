import { type Clock, type ProgressEvent, type ProgressListener, systemClock } from '../core/index.ts';
import { type DiskProgress, diskProgress } from './disk-progress.ts';
import { barLine, eventLine, finishedLine, percentLine } from './progress-text.ts';
import { terminalBlock } from './terminal-block.ts';

/** Where progress is written: `process.stderr`, or anything with as much of it. */
export interface ProgressStream {
  /** Takes a text; what it returns is not looked at. */
  write(text: string): unknown;
  /** Is it a terminal? */
  readonly isTTY?: boolean | undefined;
  /** Width of the terminal. */
  readonly columns?: number | undefined;
  /** Height of the terminal. */
  readonly rows?: number | undefined;
}

/** How {@link showProgress} shows a run. */
export interface ShowProgressOptions {
  /**
   * Draw bars in place (`true`), or print lines only.
   * @defaultValue whether the stream is a terminal that can move its cursor
   */
  readonly bars?: boolean | undefined;
  /**
   * The shortest time between two drawings, in milliseconds.
   * @defaultValue `100`
   */
  readonly redrawMs?: number | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Pick<Clock, 'now'> | undefined;
}

/** What shows a run to a person until it is closed. */
export interface ProgressDisplay extends Disposable {
  /** Hand it to an operation as its `onProgress`. */
  readonly onProgress: ProgressListener;
  /** Takes the bars off the screen; later events are ignored. The same as `Symbol.dispose`. */
  close(): void;
}

interface Disk {
  readonly run: string;
  readonly progress: DiskProgress;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** A file that is read or copied: neither its start nor its end are told, its name and its length are. */
  readonly isFile: boolean;
  /** How many tenths have been told in plain lines. */
  tenths: number;
}

/**
 * Shows a run to a person: on a terminal a bar for each disk with throughput and remaining time below a line for each
 * event of note; elsewhere lines only, with a disk's progress at most every tenth. It starts no timer and holds
 * nothing open.
 *
 * @example
 * using progress = showProgress();
 * await backupVm(host, repository, { vm, onProgress: progress.onProgress });
 */
export function showProgress(
  stream: ProgressStream = process.stderr,
  options: ShowProgressOptions = {},
): ProgressDisplay {
  const { redrawMs = 100, clock = systemClock } = options;
  const { bars = stream.isTTY === true && process.env['TERM'] !== 'dumb' } = options;
  const block = terminalBlock(stream);
  const disks = new Map<string, Disk>();
  let closed = false;
  let drawnMs = Number.NEGATIVE_INFINITY;

  function print(text: string): void {
    if (bars) draw([text]);
    else stream.write(`${text}\n`);
  }

  function draw(kept: readonly string[] = []): void {
    drawnMs = clock.now();
    const columns = Math.max(1, (stream.columns ?? 80) - 1);
    // A block as high as the screen scrolls, and can no longer be drawn in place.
    const room = Math.max(1, (stream.rows ?? 24) - 2);
    const all = [...disks.values()];
    const lines = all.slice(0, room).map(({ progress }) => barLine(progress, drawnMs, columns));
    if (all.length > room) lines.push(`… and ${all.length - room} more`);
    block.draw(kept, lines);
  }

  function onMoved(disk: Disk): void {
    const { progress } = disk;
    if (bars) {
      if (clock.now() - drawnMs >= redrawMs) draw();
      return;
    }
    const fraction = progress.fraction ?? (disk.size === 0 ? 1 : progress.movedBytes / disk.size);
    const tenths = Math.floor(fraction * 10);
    if (tenths <= disk.tenths || tenths >= 10) return; // the end has a line of its own
    disk.tenths = tenths;
    print(percentLine(disk.run, progress));
  }

  /** What moves without having been announced: a file, if its length is known, else nothing that could be shown. */
  function fileOf(event: ProgressEvent): Disk | undefined {
    if (event.kind !== 'bytes-moved' || event.totalBytes === undefined) return undefined;
    const label = event.diskId.split('/').slice(-2).join('/');
    const progress = diskProgress(label, clock.now(), event.totalBytes);
    return { run: event.run, progress, size: event.totalBytes, isFile: true, tenths: 0 };
  }

  function onProgress(event: ProgressEvent): void {
    if (closed) return;
    const text = eventLine(event);
    if (event.kind === 'disk-started') {
      const progress = diskProgress(event.label, clock.now(), event.totalBytes);
      disks.set(keyOf(event), { run: event.run, progress, size: event.size, isFile: false, tenths: 0 });
    }
    if (text !== undefined) print(text);
    if (event.kind !== 'bytes-moved' && event.kind !== 'disk-finished') return;
    const key = keyOf(event);
    const disk = disks.get(key) ?? fileOf(event);
    if (disk === undefined) return;
    if (event.kind === 'bytes-moved') {
      disk.progress.moved(clock.now(), event.movedBytes, event.totalBytes);
      if (disk.isFile) {
        if (event.movedBytes === event.totalBytes) disks.delete(key);
        else disks.set(key, disk);
      }
      onMoved(disk);
    } else {
      disks.delete(key);
      print(finishedLine(disk.run, disk.progress, event.movedBytes, clock.now()));
    }
  }

  function close(): void {
    if (closed) return;
    closed = true;
    disks.clear();
    if (bars) draw();
  }

  return { onProgress, close, [Symbol.dispose]: close };
}

function keyOf({ run, diskId }: { readonly run: string; readonly diskId: string }): string {
  return `${run} ${diskId}`;
}
