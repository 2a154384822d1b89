import { hostname } from 'node:os';
import { type Host, NULL_REF, type VmRecord } from '../host/index.ts';

/**
 * Marks on objects of the host. `other_config` travels: into snapshots, clones, copies, exports, and back with an
 * import. So an object is ours only if its mark holds its own uuid; a mark that names another object is a stray copy.
 */
export const OWNER_KEY = 'xen-backup-sdk:owner';
/** On a VM while it is being worked on: what a later run needs when this one is killed. */
export const INTENT_KEY = 'xen-backup-sdk:intent';
/** On a restored VM: which VM and point it came from. */
export const RESTORED_FROM_KEY = 'xen-backup-sdk:restored-from';
/** Every key of ours in `other_config`; restores strip them. */
export const OUR_KEYS: readonly string[] = [OWNER_KEY, INTENT_KEY, RESTORED_FROM_KEY];

/** Which process does the work, so that a later one can tell whether it still lives. */
export interface Runner {
  readonly hostname: string;
  readonly pid: number;
}

/** What we write on an object that we made. */
export interface OwnerMark {
  /** The marked object's own uuid. */
  readonly uuid: string;
  readonly runId: string;
  readonly runner: Runner;
  /** ISO 8601, UTC. */
  readonly at: string;
  /** `working`: to be removed when its run ends. `kept`: the base of the next incremental of `keptFor`. */
  readonly state: 'working' | 'kept';
  readonly keptFor?: KeptFor | undefined;
}

/** Who needs a kept snapshot. */
export interface KeptFor {
  readonly repositoryId: string;
  readonly strategy: string;
  readonly point: string;
}

/** What we write on a VM before its snapshot. */
export interface Intent {
  /** The VM's own uuid. */
  readonly uuid: string;
  readonly runId: string;
  readonly runner: Runner;
  /** ISO 8601, UTC. */
  readonly at: string;
}

/** What we write on a VM that was restored. */
export interface RestoredFromMark {
  /** The restored VM's own uuid. */
  readonly uuid: string;
  readonly vmUuid: string;
  readonly repositoryId: string;
  readonly point: string;
}

type Marked = { readonly uuid: string; readonly other_config: Readonly<Record<string, string>> };

/** The object's owner mark, if it is its own. For a VM the caller checks `is_a_snapshot`, too. */
export function readOwnerMark(record: Marked): OwnerMark | undefined {
  const mark = readMark<OwnerMark>(record, OWNER_KEY, ['runId', 'at', 'state']);
  return mark !== undefined && isRunner(mark.runner) ? mark : undefined;
}

export function readIntent(record: Marked): Intent | undefined {
  const intent = readMark<Intent>(record, INTENT_KEY, ['runId', 'at']);
  return intent !== undefined && isRunner(intent.runner) ? intent : undefined;
}

export function readRestoredFrom(record: Marked): RestoredFromMark | undefined {
  return readMark<RestoredFromMark>(record, RESTORED_FROM_KEY, ['vmUuid', 'repositoryId', 'point']);
}

/** Sets one key of an object's `other_config`, replacing what was there. */
export async function writeMark(host: Host, type: 'VM' | 'VDI', ref: string, key: string, mark: object): Promise<void> {
  await removeMark(host, type, ref, key); // an add onto a present key is refused: MAP_DUPLICATE_KEY
  await host.call(`${type}.add_to_other_config`, ref, key, JSON.stringify(mark));
}

/** Takes one key out of an object's `other_config`; a missing key is no error to the host. */
export async function removeMark(host: Host, type: 'VM' | 'VDI', ref: string, key: string): Promise<void> {
  await host.call(`${type}.remove_from_other_config`, ref, key);
}

/** The name of a working snapshot: it finds the snapshot again when the run died before it was marked. */
export function workingName(vm: Pick<VmRecord, 'name_label'>, runId: string): string {
  return `${vm.name_label} [xen-backup-sdk ${runId}]`;
}

/** Does the name say that this run made it? A name alone proves nothing: users copy names. */
export function bearsWorkingName(snapshot: Pick<VmRecord, 'name_label'>, runId: string): boolean {
  return snapshot.name_label.endsWith(` [xen-backup-sdk ${runId}]`);
}

/** A snapshot that bears the run's name and belongs to the VM whose intent says so, though it was never marked. */
export function isUnmarkedWork(snapshot: VmRecord, vm: VmRecord, intent: Intent): boolean {
  return (
    snapshot.is_a_snapshot &&
    snapshot.snapshot_of !== NULL_REF &&
    snapshot.snapshot_of === vm.ref &&
    bearsWorkingName(snapshot, intent.runId)
  );
}

const running = new Set<string>();

/** This process, and the run while it lasts. */
export function startRun(runId: string): { readonly runner: Runner; end(): void } {
  running.add(runId);
  return { runner: { hostname: hostname(), pid: process.pid }, end: () => running.delete(runId) };
}

/** How long a run on another machine is taken to be alive, in milliseconds: no backup lasts longer than a session. */
const FOREIGN_RUN_MS = 24 * 3600 * 1000;

/** May the run behind a mark still be working? Surely not, if its process is gone. */
export function mayBeAlive(mark: Pick<OwnerMark, 'runId' | 'runner' | 'at'>, now: number): boolean {
  if (running.has(mark.runId)) return true;
  if (mark.runner.hostname !== hostname()) return now - Date.parse(mark.at) < FOREIGN_RUN_MS;
  if (mark.runner.pid === process.pid) return false; // our pid, yet no run of ours: an earlier process had this number
  return processExists(mark.runner.pid);
}

function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // it exists and belongs to somebody else
  }
}

function readMark<T extends { readonly uuid: string }>(
  record: Marked,
  key: string,
  members: readonly (keyof T & string)[],
): T | undefined {
  const text = record.other_config[key];
  if (text === undefined) return undefined;
  const mark = parseObject(text);
  if (mark?.['uuid'] !== record.uuid) return undefined;
  if (members.some((member) => typeof mark[member] !== 'string')) return undefined;
  return mark as unknown as T;
}

function isRunner(value: unknown): value is Runner {
  const runner = value as Partial<Runner> | null;
  return typeof runner?.hostname === 'string' && Number.isSafeInteger(runner.pid);
}

/** The mark's text as an object; a text that somebody else wrote there is no mark of ours. */
function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
