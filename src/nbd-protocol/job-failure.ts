import { RequestRefused } from './command.ts';
import { COMMAND, COMMAND_FLAG, ERRNO, errnoName, TRANSMISSION } from './constants.ts';
import { NbdError } from './errors.ts';
import type { Job } from './job.ts';
import type { Settings } from './settings.ts';

/** What to do with a job that did not succeed. */
export type Verdict =
  | { readonly kind: 'fail'; readonly error: NbdError }
  /** Send it again; `flags` replace the command's. */
  | { readonly kind: 'again'; readonly flags?: number }
  /** Send it again in halves, down to the alignment; `error` is for when that is reached. */
  | { readonly kind: 'halve'; readonly error: NbdError }
  /** As `again`, on another connection: this one's server is going down. */
  | { readonly kind: 'elsewhere' };

/** Same range again, so often, before it is halved. */
const TRIES_FOR_PASSING_ERRORS = 3;

/** Decides by what happened and by what the job has gone through already; counts it, too. */
export function judgeFailure(job: Job, error: unknown, flags: number, settings: Settings): Verdict {
  if (error instanceof RequestRefused) return judgeRefusal(job, error, settings);
  if (!(error instanceof NbdError)) throw error;
  return judgeLoss(job, error, flags, settings);
}

function judgeRefusal(job: Job, { errno, message }: RequestRefused, settings: Settings): Verdict {
  const error = refused(job, errno, message, settings);
  const { type, length } = job.command;
  if (errno === ERRNO.ESHUTDOWN) {
    job.losses++;
    return isRepeatable(type) && job.losses <= settings.reconnect.tries
      ? { kind: 'elsewhere' }
      : { kind: 'fail', error };
  }
  if (type !== COMMAND.READ) return { kind: 'fail', error };
  if (errno === ERRNO.EIO || errno === ERRNO.ENOMEM) {
    job.failures++;
    return job.failures < TRIES_FOR_PASSING_ERRORS ? { kind: 'again' } : { kind: 'halve', error };
  }
  // In range and aligned, so a large read may only be too large for this server.
  const mayBeTooLarge = errno === ERRNO.EOVERFLOW || (errno === ERRNO.EINVAL && length > 64 * 1024);
  return mayBeTooLarge ? { kind: 'halve', error } : { kind: 'fail', error };
}

/**
 * A read that is in flight whenever a connection dies may be what kills it: qemu-nbd ends the connection on a bad
 * sector unless the read forbids it to cut the answer (DF), and then tells the error.
 */
function judgeLoss(job: Job, error: NbdError, flags: number, { reconnect }: Settings): Verdict {
  job.losses++;
  const limit = error.code === 'NBD_PROTOCOL' ? Math.min(1, reconnect.tries) : reconnect.tries;
  const mayGoOn = error.retryable || error.code === 'NBD_PROTOCOL';
  if (!isRepeatable(job.command.type) || !mayGoOn || job.losses > limit) return { kind: 'fail', error };
  const canForbidCuts = job.command.type === COMMAND.READ && (flags & TRANSMISSION.SEND_DF) !== 0;
  return job.losses >= 2 && canForbidCuts ? { kind: 'again', flags: COMMAND_FLAG.DF } : { kind: 'again' };
}

/** What was sent once may have been done: only what changes nothing is sent twice. */
function isRepeatable(type: number): boolean {
  return type === COMMAND.READ || type === COMMAND.BLOCK_STATUS || type === COMMAND.CACHE;
}

function refused(job: Job, errno: number, detail: string, { fail }: Settings): NbdError {
  const { type, offset, length } = job.command;
  const name = Object.entries(COMMAND).find(([, value]) => value === type)?.[0] ?? `command ${type}`;
  const text = `${name} of ${length} bytes at ${offset}: ${errnoName(errno)}${detail === '' ? '' : ` (${detail})`}`;
  const retryable = errno === ERRNO.EIO || errno === ERRNO.ENOMEM || errno === ERRNO.ESHUTDOWN;
  const code = errno === ERRNO.ESHUTDOWN ? 'NBD_SHUTDOWN' : 'NBD_REQUEST_FAILED';
  return fail(code, 'transmission', text, { errno, retryable, facts: { offset, length } });
}
