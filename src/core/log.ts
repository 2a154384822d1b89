import { inspect } from 'node:util';
import createDebug from 'debug';
import { redact } from './redact.ts';

/** Where diagnostic lines go. `message` and `facts` are free of secrets. */
export interface Logger {
  debug(message: string, facts?: Readonly<Record<string, unknown>>): void;
}

/**
 * A logger that prints through the `debug` package when its namespace is switched on, for example with
 * `DEBUG=xen-backup-sdk:*`. Everything passes {@link redact} first.
 */
export function createLog(area: string): Logger {
  const print = createDebug(`xen-backup-sdk:${area}`);
  return {
    debug(message, facts) {
      if (!print.enabled) return;
      const tail = facts === undefined ? '' : ` ${inspect(facts, { depth: 4, breakLength: Infinity })}`;
      print('%s', redact(message + tail));
    },
  };
}
