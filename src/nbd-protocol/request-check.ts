import { COMMAND, COMMAND_FLAG, ERRNO, MAX_PAYLOAD, TRANSMISSION } from './constants.ts';
import type { RequestHeader } from './messages.ts';

/** What a request is checked against. */
export interface ServedExport {
  /** In bytes. */
  readonly size: number;
  /** The transmission flags that the client was told. */
  readonly flags: number;
  /** Was a metadata context agreed? */
  readonly hasContext: boolean;
}

const { FUA, NO_HOLE, DF, REQ_ONE } = COMMAND_FLAG;
/** What a command may carry, and the transmission flag it needs. */
const RULES: ReadonlyMap<number, { flags: number; needs: number; writes: boolean; payload: boolean }> = new Map([
  [COMMAND.READ, { flags: DF, needs: 0, writes: false, payload: true }],
  [COMMAND.WRITE, { flags: 0, needs: 0, writes: true, payload: true }],
  [COMMAND.FLUSH, { flags: 0, needs: TRANSMISSION.SEND_FLUSH, writes: false, payload: false }],
  [COMMAND.TRIM, { flags: 0, needs: TRANSMISSION.SEND_TRIM, writes: true, payload: false }],
  [COMMAND.CACHE, { flags: 0, needs: TRANSMISSION.SEND_CACHE, writes: false, payload: false }],
  [COMMAND.WRITE_ZEROES, { flags: NO_HOLE, needs: TRANSMISSION.SEND_WRITE_ZEROES, writes: true, payload: false }],
  [COMMAND.BLOCK_STATUS, { flags: REQ_ONE, needs: 0, writes: false, payload: false }],
]);

/** The error number to refuse a request with, or 0 when it is in order. Done before any work. */
export function checkRequest(request: RequestHeader, served: ServedExport): number {
  const { type, offset, length } = request;
  const rule = RULES.get(type);
  if (rule === undefined) return ERRNO.EINVAL;
  if (rule.writes && (served.flags & TRANSMISSION.READ_ONLY) !== 0) return ERRNO.EPERM;
  if ((served.flags & rule.needs) !== rule.needs) return ERRNO.EINVAL;
  const allowed =
    ((served.flags & TRANSMISSION.SEND_FUA) !== 0 ? FUA : 0) +
    (rule.flags === DF && (served.flags & TRANSMISSION.SEND_DF) === 0 ? 0 : rule.flags);
  if ((request.flags & ~allowed) !== 0) return ERRNO.EINVAL;
  if (type === COMMAND.FLUSH) return offset === 0 && length === 0 ? 0 : ERRNO.EINVAL;
  if (type === COMMAND.BLOCK_STATUS && !served.hasContext) return ERRNO.EINVAL;
  if (length === 0) return ERRNO.EINVAL; // unspecified by the protocol
  if (offset + length > served.size) return rule.writes ? ERRNO.ENOSPC : ERRNO.EINVAL;
  return rule.payload && length > MAX_PAYLOAD ? ERRNO.EINVAL : 0;
}
