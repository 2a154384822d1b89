import { changeBytes } from './change-bitmap.ts';
import { XapiFailure } from './world.ts';

/**
 * The change log of a disk that is not written to any more: a snapshot's, or what `data_destroy` left of it. It says
 * what changed since the log before it in the chain.
 */
export interface ClosedLog {
  /** The disk's uuid. */
  readonly id: string;
  /** In bytes. */
  readonly size: number;
  /** One bit for each 64 KiB, most significant first. */
  readonly bits: Uint8Array;
}

/**
 * The logs of one disk since tracking was enabled, oldest first. Turning it off ends the chain; turning it on begins
 * another one. A value: every change gives a new one.
 *
 * @see xapi-project/sm `libs/sm/VDI.py` `_cbt_snapshot`, `list_changed_blocks`, `delete`; `cbtutil.py`
 */
export interface ChangeChain {
  /** The disk that is being written to. */
  readonly liveId: string;
  readonly closed: readonly ClosedLog[];
  /** What the live disk's log has taken over from a snapshot that was destroyed. */
  readonly carried: Uint8Array;
}

/** What `VDI.enable_cbt` begins. */
export function newChangeChain(liveId: string): ChangeChain {
  return { liveId, closed: [], carried: new Uint8Array(0) };
}

/** A snapshot takes over the live disk's log up to now; the live disk goes on with an empty one. */
export function closeLog(chain: ChangeChain, snapshot: ClosedLog): ChangeChain {
  const bits = union([snapshot.bits, chain.carried], snapshot.size);
  return { ...chain, closed: [...chain.closed, { ...snapshot, bits }], carried: new Uint8Array(0) };
}

/** `VDI.destroy` of a snapshot, or of what `data_destroy` left: its log is merged into that of its child. */
export function dropLog(chain: ChangeChain, id: string): ChangeChain {
  const at = chain.closed.findIndex((log) => log.id === id);
  const dropped = chain.closed[at];
  if (dropped === undefined) return chain;
  const before = chain.closed.slice(0, at);
  const child = chain.closed[at + 1];
  if (child === undefined) {
    return { ...chain, closed: before, carried: union([dropped.bits, chain.carried], dropped.size) };
  }
  const merged = { ...child, bits: union([dropped.bits, child.bits], child.size) };
  return { ...chain, closed: [...before, merged, ...chain.closed.slice(at + 2)] };
}

/**
 * `VDI.list_changed_blocks`: every block written after `from` up to `to`, sized as `to`. `live` is the present log of
 * the disk itself, for `to` = the live disk.
 *
 * @throws XapiFailure `SR_BACKEND_FAILURE_460` where no path leads from one to the other (also for equal or reversed
 * disks), `SR_BACKEND_FAILURE_459` where a disk has shrunk.
 */
export function listChangedBlocks(
  chain: ChangeChain | undefined,
  from: string,
  to: string,
  live?: Omit<ClosedLog, 'id'>,
): Uint8Array {
  if (from === to) throw unrelated('Source and target VDI are same');
  if (chain === undefined) throw unrelated('Source and target VDI are unrelated');
  const logs = live === undefined ? chain.closed : [...chain.closed, liveLog(chain, live)];
  const first = logs.findIndex(({ id }) => id === from);
  const last = logs.findIndex(({ id }) => id === to);
  if (first < 0 || last <= first) throw unrelated('Source and target VDI are unrelated');
  const path = logs.slice(first + 1, last + 1);
  const size = path.at(-1)?.size ?? 0;
  if (logs.slice(first, last).some((log) => log.size > size)) {
    throw new XapiFailure('SR_BACKEND_FAILURE_459', ['', 'CBT metadata is inconsistent', '']);
  }
  return union(
    path.map(({ bits }) => bits),
    size,
  );
}

function liveLog(chain: ChangeChain, { size, bits }: Omit<ClosedLog, 'id'>): ClosedLog {
  return { id: chain.liveId, size, bits: union([bits, chain.carried], size) };
}

function unrelated(reason: string): XapiFailure {
  return new XapiFailure('SR_BACKEND_FAILURE_460', [
    '',
    `Failed to calculate changed blocks for given VDIs. [opterr=${reason}]`,
    '',
  ]);
}

/** The bits set in any, for a disk of `size` bytes. */
function union(bitmaps: readonly Uint8Array[], size: number): Uint8Array {
  const all = new Uint8Array(changeBytes(size));
  for (const bits of bitmaps) {
    const length = Math.min(bits.byteLength, all.byteLength);
    for (let at = 0; at < length; at++) all[at] = (all[at] ?? 0) | (bits[at] ?? 0);
  }
  return all;
}
