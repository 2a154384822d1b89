import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { BackupError, type CallOptions, type Clock, createLog } from '../core/index.ts';
import { FieldError, integer, literal, matching, object, oneOf, text, utcTime } from './fields.ts';
import { leaseGeneration, leaseName, leasesFolder, vmFolder } from './layout.ts';
import type { AcquireLeaseOptions, Lease, LeaseHolder, LeaseInfo } from './lease.ts';
import { processExists } from './living-process.ts';
import { readWhole } from './points.ts';
import { checkSeal, encodeSealed, parseJson } from './sealed-json.ts';
import type { Store } from './store.ts';

const log = createLog('lease');

/** A lease that is not renewed for so long may be taken, in milliseconds. */
const VALID_MS = 10 * 60_000;
/** Several chances before it runs out. */
const RENEW_MS = VALID_MS / 4;
/** How long a waiting writer lets pass between two looks, in milliseconds. */
const LOOK_MS = 1000;
/** In bytes: what is longer is no lease. */
const LONGEST = 64 * 1024;

/** The leases that this thread holds, by their tokens. */
const own = new Set<string>();

/** What a lease's file says. */
interface LeaseFile extends Omit<LeaseInfo, 'state' | 'vmUuid'> {
  readonly format: 1;
  /** Tells a holder whether the file is still its own. */
  readonly token: string;
}

const leaseFile = object<LeaseFile>({
  format: literal(1),
  token: matching('a uuid', (value) => /^[0-9a-f-]{36}$/.test(value)),
  purpose: oneOf('backup', 'copy', 'prune', 'remove', 'write'),
  holder: object<LeaseHolder>({ hostname: text, pid: integer, thread: integer }),
  acquiredAt: utcTime,
  expiresAt: utcTime,
});

/**
 * Takes the lease of a VM. Leases are numbered: who creates the file of the next number has it, and a holder whose number is
 * not the highest has lost it. So a lease that ran out is taken from a holder that may yet wake up.
 *
 * @throws BackupError `LEASE_HELD` with `facts.holder`, where another one has it and goes on having it for `waitMs`.
 */
export async function acquireLease(
  store: Store,
  vmUuid: string,
  clock: Clock,
  { purpose = 'write', waitMs = 0, steal = false, onProgress, signal }: AcquireLeaseOptions = {},
): Promise<Lease> {
  const token = randomUUID();
  const holder = { hostname: hostname(), pid: process.pid, thread: threadId };
  const until = clock.now() + waitMs;
  let refused: number | undefined;
  let waitedFor: string | undefined;
  for (;;) {
    const newest = await findNewest(store, vmUuid, { signal });
    const file = newest && (await readLease(store, newest.name, { signal }));
    const state = file === undefined ? 'free' : stateOf(file, clock.now());
    if (file !== undefined && state === 'held' && !steal) {
      const left = until - clock.now();
      if (left <= 0) throw heldByOther(vmUuid, file);
      if (waitedFor !== file.token && purpose !== 'remove' && purpose !== 'write') {
        onProgress?.({ kind: 'waiting', run: purpose, vmUuid, waitMs, reason: describe(file) });
      }
      waitedFor = file.token;
      await clock.sleep(Math.min(LOOK_MS, left), { signal });
      continue;
    }
    if (state !== 'free') log.debug('taking a lease', { vmUuid, state, from: file?.holder });
    // Who left it may have died before the last things that it did were durable, and we build on them.
    if (newest !== undefined) await store.settle?.(vmFolder(vmUuid), { signal });
    const now = clock.now();
    const next: LeaseFile = { format: 1, token, purpose, holder, acquiredAt: isoTime(now), expiresAt: expiry(now) };
    const generation = (newest?.generation ?? 0) + 1;
    // Refused, and nobody has it: without hard links one who died may have claimed the name, for a minute.
    if (generation === refused) await clock.sleep(LOOK_MS, { signal });
    const lease = new StoredLease(store, vmUuid, generation, next, clock);
    if (await lease.take({ signal })) return lease;
    refused = generation;
  }
}

/** Who has the lease of a VM, or had it and did not give it back; `undefined` where nobody has it. */
export async function inspectLease(
  store: Store,
  vmUuid: string,
  clock: Clock,
  options: CallOptions = {},
): Promise<LeaseInfo | undefined> {
  const newest = await findNewest(store, vmUuid, options);
  const file = newest && (await readLease(store, newest.name, options));
  if (file === undefined) return undefined;
  const { purpose, holder, acquiredAt, expiresAt } = file;
  return { vmUuid, purpose, holder, acquiredAt, expiresAt, state: stateOf(file, clock.now()) };
}

class StoredLease implements Lease {
  readonly vmUuid: string;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #generation: number;
  readonly #name: string;
  readonly #lost = new AbortController();
  readonly #released = new AbortController();
  #file: LeaseFile;
  #renewing: Promise<void> | undefined;

  constructor(store: Store, vmUuid: string, generation: number, file: LeaseFile, clock: Clock) {
    this.vmUuid = vmUuid;
    this.#store = store;
    this.#clock = clock;
    this.#generation = generation;
    this.#name = leaseName(vmUuid, generation);
    this.#file = file;
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** Creates the file; `false` where another one was quicker. Not to be stopped halfway: the file would stay. */
  async take({ signal }: CallOptions): Promise<boolean> {
    signal?.throwIfAborted();
    own.add(this.#file.token);
    try {
      await this.#store.write(this.#name, encodeSealed(this.#file));
      await this.assertHeld(); // a holder of a higher number may have come and removed lower ones since we looked
      await this.#removeOlder();
    } catch (error) {
      await this.release();
      const isTaken = error instanceof BackupError && (error.code === 'STORE_EXISTS' || error.code === 'LEASE_LOST');
      if (isTaken) return false;
      throw error;
    }
    this.#renewing = this.#renew();
    return true;
  }

  async assertHeld(options: CallOptions = {}): Promise<void> {
    this.#lost.signal.throwIfAborted();
    if (this.#released.signal.aborted) throw lostLease(this.vmUuid, 'it was given back');
    if (await this.#isOurs(options)) return;
    const error = lostLease(this.vmUuid, 'another writer has taken it, since it had not been renewed in time');
    this.#lost.abort(error);
    throw error;
  }

  async release(): Promise<void> {
    if (this.#released.signal.aborted) return;
    this.#released.abort(lostLease(this.vmUuid, 'it was given back'));
    await this.#renewing;
    try {
      if (await this.#isOurs({})) await this.#store.remove(this.#name);
    } catch (error) {
      log.debug('a lease is left', { name: this.#name, error });
    }
    own.delete(this.#file.token);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  async #isOurs(options: CallOptions): Promise<boolean> {
    const newest = await findNewest(this.#store, this.vmUuid, options);
    if (newest?.generation !== this.#generation) return false;
    return (await readLease(this.#store, this.#name, options))?.token === this.#file.token;
  }

  async #removeOlder(): Promise<void> {
    const { names } = await this.#store.list(leasesFolder(this.vmUuid));
    for (const name of names) {
      const generation = leaseGeneration(name);
      if (generation !== undefined && generation < this.#generation) await this.#store.remove(name);
    }
  }

  async #renew(): Promise<void> {
    const { signal } = this.#released;
    while (!signal.aborted && !this.#lost.signal.aborted) {
      try {
        await this.#clock.sleep(RENEW_MS, { signal, ref: false });
        await this.assertHeld();
        this.#file = { ...this.#file, expiresAt: expiry(this.#clock.now()) };
        await this.#store.write(this.#name, encodeSealed(this.#file), { replace: true });
      } catch (error) {
        if (!signal.aborted) log.debug('a lease is not renewed', { name: this.#name, error }); // it is tried again
      }
    }
  }
}

/** The file of the highest number, if there is any. */
async function findNewest(
  store: Store,
  vmUuid: string,
  options: CallOptions,
): Promise<{ readonly name: string; readonly generation: number } | undefined> {
  const { names } = await store.list(leasesFolder(vmUuid), options);
  let newest: { name: string; generation: number } | undefined;
  for (const name of names) {
    const generation = leaseGeneration(name);
    if (generation !== undefined && generation > (newest?.generation ?? 0)) newest = { name, generation };
  }
  return newest;
}

/**
 * What a file says, `undefined` where it is gone. One that cannot be read holds nobody up: taking a lease from one who lives
 * costs a retry, and loses nothing.
 */
async function readLease(store: Store, name: string, options: CallOptions): Promise<LeaseFile | undefined> {
  try {
    const bytes = await readWhole(store, name, LONGEST, options);
    checkSeal(bytes);
    return leaseFile(parseJson(bytes), '');
  } catch (error) {
    if (error instanceof BackupError && error.code === 'STORE_NOT_FOUND') return undefined;
    const isBroken = error instanceof FieldError || (error instanceof BackupError && error.code === 'POINT_BROKEN');
    if (!isBroken) throw error;
    log.debug('a lease that cannot be read', { name, error });
    return undefined;
  }
}

function stateOf({ token, holder, acquiredAt, expiresAt }: LeaseFile, now: number): LeaseInfo['state'] {
  if (own.has(token)) return 'held';
  if (holder.hostname === hostname()) {
    if (holder.pid !== process.pid) {
      if (!processExists(holder.pid)) return 'abandoned';
    } else if (holder.thread === threadId || Date.parse(acquiredAt) < Date.now() - process.uptime() * 1000) {
      return 'abandoned'; // of an earlier process with our number, or given up by this thread without being removed
    }
  }
  return now < Date.parse(expiresAt) ? 'held' : 'expired';
}

function expiry(now: number): string {
  return isoTime(now + VALID_MS);
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** Who writes, for people. */
function describe({ holder, purpose, acquiredAt, expiresAt }: LeaseFile): string {
  const who = `process ${holder.pid} on ${holder.hostname}`;
  return `${who} (${purpose}, since ${acquiredAt}, until ${expiresAt} at least)`;
}

function heldByOther(vmUuid: string, file: LeaseFile): BackupError {
  const { holder, purpose, acquiredAt, expiresAt } = file;
  return new BackupError('LEASE_HELD', `VM ${vmUuid} has another writer: ${describe(file)}`, {
    retryable: true,
    facts: { vmUuid, holder, purpose, acquiredAt, expiresAt },
  });
}

function lostLease(vmUuid: string, why: string): BackupError {
  return new BackupError('LEASE_LOST', `the lease of VM ${vmUuid} is lost: ${why}`, {
    retryable: true,
    facts: { vmUuid },
  });
}
