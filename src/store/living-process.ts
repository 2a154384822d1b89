import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { systemCode } from './store-error.ts';

/** This machine, as it stands in what we write: eight digits of the SHA-256 of its name. */
export function thisMachine(): string {
  return createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
}

/** Is there a process of this number on this machine? */
export function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0); // signal 0 only asks
    return true;
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return false;
    if (systemCode(error) === 'EPERM') return true; // alive, another user's
    throw error;
  }
}
