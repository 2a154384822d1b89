import { createLog, redact } from '../../core/index.ts';

const log = createLog('host:xen-api');

function line(...parts: unknown[]): void {
  log.debug(redact(parts.map((part) => (part instanceof Error ? part.message : String(part))).join(' ')));
}

/** The console of the bundled `xen-api`: a library prints nothing unless asked, and no session reference ever. */
export const console = { log: line, warn: line, error: line };
