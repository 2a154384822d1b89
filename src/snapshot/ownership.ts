import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import type { Host, VmRecord } from '../host/index.ts';

/**
 * Marks on objects of the host. `other_config` travels: into snapshots, clones, copies, exports, and back with an
 * import. So an object is ours only if its mark holds its own uuid; a mark that names another object is a stray copy.
 */
const KEYS = 'xen-backup-sdk:';
/** @internal */
export const OWNER_KEY = `${KEYS}owner`;
const INTENT_KEYS = `${KEYS}intent:`;
/**
 * On a restored VM: which VM and point it came from.
 *
 * @internal
 */
export const RESTORED_FROM_KEY = `${KEYS}restored-from`;

/**
 * Where a run writes its intent on a VM: each run under its own key, since two may work on one VM.
 *
 * @internal
 */
export function intentKey(runId: string): string {
  return `${INTENT_KEYS}${runId}`;
}

/**
 * Is it a key of ours in `other_config`? Restores leave these out.
 *
 * @internal
 */
export function isOurKey(key: string): boolean {
  return key.startsWith(KEYS);
}

/** Which process does the work, so that a later one can tell whether it still lives. */
export interface Runner {
  /** Of the machine. */
  readonly hostname: string;
  /** Of the process. */
  readonly pid: number;
  /** The thread of that process, 0 for the main one: a thread cannot see the runs of another. */
  readonly thread: number;
}

/** What we write on an object that we made. */
export interface OwnerMark {
  /** The marked object's own uuid. */
  readonly uuid: string;
  /** The VM that the work is for: objects may outlive it, and what they say about it. */
  readonly vmUuid: string;
  /** The run that made it. */
  readonly runId: string;
  /** Who did the work. */
  readonly runner: Runner;
  /** ISO 8601, UTC. */
  readonly at: string;
  /** `working`: to be removed when its run ends. `kept`: the base of the next incremental of `keptFor`. */
  readonly state: 'working' | 'kept';
  /** Of a kept snapshot. */
  readonly keptFor?: KeptFor | undefined;
  /** Of a run that a later one may go on with: its end, even a violent one, does not make this a leftover. */
  readonly resume?: ResumeMark | undefined;
}

/** Until when, and for whom, the objects of a run that was cut short stay. */
export interface ResumeMark {
  /** The repository that has what the run had moved. */
  readonly repositoryId: string;
  /** ISO 8601, UTC. */
  readonly until: string;
}

/** Who needs a kept snapshot. */
export interface KeptFor {
  /** The repository whose next increment needs it. */
  readonly repositoryId: string;
  /** The strategy that keeps it: each keeps its own. */
  readonly strategy: string;
  /** The point that was read from it. */
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

/**
 * What we write on a VM that was restored.
 *
 * @internal
 */
export interface RestoredFromMark {
  /** The restored VM's own uuid. */
  readonly uuid: string;
  /** The VM that was backed up. */
  readonly vmUuid: string;
  /** The repository that it came from. */
  readonly repositoryId: string;
  /** The point that it came from. */
  readonly point: string;
}

type Marked = { readonly uuid: string; readonly other_config: Readonly<Record<string, string>> };

/**
 * The object's owner mark, if it is its own. For a VM the caller checks `is_a_snapshot`, too.
 *
 * @internal
 */
export function readOwnerMark(record: Marked): OwnerMark | undefined {
  const mark = parseMark<OwnerMark>(record, record.other_config[OWNER_KEY], ['vmUuid', 'runId', 'at', 'state']);
  return mark !== undefined && isRunner(mark.runner) && isResume(mark.resume) ? mark : undefined;
}

/** The intents on a VM that are its own: one of each run that was about to take its snapshot. */
export function readIntents(vm: Marked): Intent[] {
  return Object.keys(vm.other_config).flatMap((key) => {
    if (!key.startsWith(INTENT_KEYS)) return [];
    const intent = parseIntent(vm, vm.other_config[key]);
    return intent !== undefined && key === intentKey(intent.runId) ? [intent] : [];
  });
}

/** An intent of a run on this very VM, if the text is one. */
export function parseIntent(vm: Pick<VmRecord, 'uuid'>, text: string | undefined): Intent | undefined {
  const intent = parseMark<Intent>(vm, text, ['runId', 'at']);
  return intent !== undefined && isRunner(intent.runner) ? intent : undefined;
}

/** @internal */
export function readRestoredFrom(record: Marked): RestoredFromMark | undefined {
  return parseMark<RestoredFromMark>(record, record.other_config[RESTORED_FROM_KEY], [
    'vmUuid',
    'repositoryId',
    'point',
  ]);
}

/**
 * Sets one key of an object's `other_config`, replacing what was there.
 *
 * @internal
 */
export async function writeMark(host: Host, type: 'VM' | 'VDI', ref: string, key: string, mark: object): Promise<void> {
  await removeMark(host, type, ref, key); // an add onto a present key is refused: MAP_DUPLICATE_KEY
  await host.call(`${type}.add_to_other_config`, ref, key, JSON.stringify(mark));
}

/**
 * Sets one key of the `other_config` of an object of ours, in one step: whoever dies there has not lost its mark.
 *
 * @internal
 */
export async function replaceMark(
  host: Host,
  type: 'VM' | 'VDI',
  ref: string,
  key: string,
  mark: object,
): Promise<void> {
  const { other_config } = await host.getRecord(type, ref);
  await host.call(`${type}.set_other_config`, ref, { ...other_config, [key]: JSON.stringify(mark) });
}

/**
 * Takes one key out of an object's `other_config`; a missing key is no error to the host.
 *
 * @internal
 */
export async function removeMark(host: Host, type: 'VM' | 'VDI', ref: string, key: string): Promise<void> {
  await host.call(`${type}.remove_from_other_config`, ref, key);
}

/**
 * The name of a working snapshot: it finds the snapshot again when the run died before it was marked.
 *
 * @internal
 */
export function workingName(vm: Pick<VmRecord, 'name_label'>, runId: string): string {
  return `${vm.name_label} [xen-backup-sdk ${runId}]`;
}

/**
 * Does the name say that this run made it? A name alone proves nothing: users copy names.
 *
 * @internal
 */
export function bearsWorkingName(snapshot: Pick<VmRecord, 'name_label'>, runId: string): boolean {
  return snapshot.name_label.endsWith(` [xen-backup-sdk ${runId}]`);
}

/**
 * A snapshot of the VM that the run works on, though it was never marked: it bears the run's name, or the guest's tools
 * made it for the run.
 */
export function isUnmarkedWork(snapshot: VmRecord, vm: Pick<VmRecord, 'ref' | 'uuid'>, runId: string): boolean {
  return (
    snapshot.is_a_snapshot &&
    snapshot.snapshot_of === vm.ref &&
    readOwnerMark(snapshot) === undefined &&
    (bearsWorkingName(snapshot, runId) || isByGuestTools(snapshot, vm, runId))
  );
}

/**
 * Of a quiesced snapshot: the guest's tools make it, under a name of theirs, and the host gives it the run's name only
 * when all is well. The run's intent travelled into it; with another run's beside it, it may be that run's.
 *
 * @see xapi-project/sm `snapwatchd/snapwatchd`
 */
function isByGuestTools(snapshot: VmRecord, vm: Pick<VmRecord, 'uuid'>, runId: string): boolean {
  if (!snapshot.name_label.startsWith(`Snapshot of ${vm.uuid} [`)) return false;
  const intents = Object.keys(snapshot.other_config).filter((key) => key.startsWith(INTENT_KEYS));
  return intents.length === 1 && intents[0] === intentKey(runId);
}

const running = new Set<string>();

/** A run that counts as living. */
export interface StartedRun {
  /** This process, for the marks of the run. */
  readonly runner: Runner;
  /** The run is over: what it left may be cleaned up. */
  end(): void;
}

/** Begins a run: its marks count as those of a living one until `end` is called. */
export function startRun(runId: string): StartedRun {
  running.add(runId);
  const runner = { hostname: hostname(), pid: process.pid, thread: threadId };
  return { runner, end: () => running.delete(runId) };
}

/** How long a run on another machine is taken to be alive, in milliseconds: no backup lasts longer than a session. */
const FOREIGN_RUN_MS = 24 * 3600 * 1000;

/** May the run behind a mark still be working? Surely not, if its process is gone. */
export function mayBeAlive(mark: Pick<OwnerMark, 'runId' | 'runner' | 'at'>, now: number): boolean {
  if (running.has(mark.runId)) return true;
  if (mark.runner.hostname !== hostname()) return now - Date.parse(mark.at) < FOREIGN_RUN_MS;
  if (mark.runner.pid !== process.pid) return processExists(mark.runner.pid);
  // Our number: of a run of this thread that has ended, of an earlier process, or of another thread, which we cannot ask.
  return mark.runner.thread !== threadId && Date.parse(mark.at) >= Date.now() - process.uptime() * 1000;
}

function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // it exists and belongs to somebody else
  }
}

function parseMark<T extends { readonly uuid: string }>(
  { uuid }: Pick<Marked, 'uuid'>,
  text: string | undefined,
  members: readonly (keyof T & string)[],
): T | undefined {
  if (text === undefined) return undefined;
  const mark = parseObject(text);
  if (mark?.['uuid'] !== uuid) return undefined;
  if (members.some((member) => typeof mark[member] !== 'string')) return undefined;
  return mark as unknown as T;
}

function isRunner(value: unknown): value is Runner {
  const runner = value as Partial<Runner> | null;
  return [runner?.pid, runner?.thread].every(Number.isSafeInteger) && typeof runner?.hostname === 'string';
}

function isResume(value: unknown): value is ResumeMark | undefined {
  if (value === undefined) return true;
  const resume = value as Partial<ResumeMark> | null;
  return typeof resume?.repositoryId === 'string' && !Number.isNaN(Date.parse(String(resume.until)));
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
