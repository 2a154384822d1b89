import { createLog } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';
import {
  BASE_ALLOCATION,
  HANDSHAKE,
  INFO,
  MAX_PAYLOAD,
  MAX_STRING,
  OPTION,
  REPLY,
  SERVED_ALLOCATION_ID,
  TRANSMISSION,
} from './constants.ts';
import {
  EXPORT_NAME_PADDING,
  encodeOptionReply,
  exportNameReply,
  infoBlockSize,
  infoExport,
  joinBytes,
  stringBytes,
  u16Bytes,
  u32Bytes,
  viewOf,
} from './messages.ts';
import {
  Dropped,
  greet,
  readOption,
  type ServerConnection,
  secureServer,
  step,
  withExport,
} from './server-connection.ts';
import { serveRequests } from './server-requests.ts';
import { canTrim, isWritable } from './server-writes.ts';

const log = createLog('nbd-server');

/** More options than this are no negotiation. */
const MAX_OPTIONS = 256;
const FIXED = HANDSHAKE.FIXED_NEWSTYLE;

/** What was negotiated so far; STARTTLS wipes it. */
interface Negotiation {
  secure: boolean;
  structured: boolean;
  /** The export for which base:allocation was agreed. */
  contextFor: string | undefined;
}

/** A connection by the protocol's own rules, from greeting to end. */
export async function serveStandard(connection: ServerConnection): Promise<void> {
  const flags = await greet(connection, FIXED + HANDSHAKE.NO_ZEROES);
  if ((flags & ~(FIXED + HANDSHAKE.NO_ZEROES)) !== 0) throw new Dropped(`client flags ${flags}`);
  const noZeroes = (flags & HANDSHAKE.NO_ZEROES) !== 0;
  const state: Negotiation = { secure: false, structured: false, contextFor: undefined };
  for (let count = 0; count < MAX_OPTIONS; count++) {
    const { option, data } = await connection.transport.read(readOption());
    await step(connection, { kind: 'option', option });
    if ((flags & FIXED) === 0 && option !== OPTION.EXPORT_NAME) throw new Dropped('options need the fixed newstyle');
    if (await answer(connection, state, option, data, noZeroes)) return;
  }
  throw new Dropped('too many options');
}

/** Answers one option; true when the connection is over. */
async function answer(
  connection: ServerConnection,
  state: Negotiation,
  option: number,
  data: Uint8Array,
  noZeroes: boolean,
): Promise<boolean> {
  const { transport, options } = connection;
  const reply = (type: number, body?: Uint8Array) => transport.write(encodeOptionReply(option, type, body));
  const refuse = (type: number, text: string) => reply(type, Buffer.from(text));
  if (option === OPTION.ABORT) {
    reply(REPLY.ACK);
    return true;
  }
  if (connection.closing.aborted) {
    if (option === OPTION.EXPORT_NAME) throw new Dropped('EXPORT_NAME while the server is going down');
    refuse(REPLY.ERR_SHUTDOWN, 'the server is going down');
    return false;
  }
  if (option === OPTION.STARTTLS) {
    await startTls(connection, state, data, refuse);
    return false;
  }
  if (options.tls !== undefined && (options.tls.mode ?? 'require') === 'require' && !state.secure) {
    if (option === OPTION.EXPORT_NAME) throw new Dropped('EXPORT_NAME before TLS');
    refuse(REPLY.ERR_TLS_REQD, 'STARTTLS first');
    return false;
  }
  switch (option) {
    case OPTION.EXPORT_NAME:
      await exportByName(connection, state, data, noZeroes);
      return true;
    case OPTION.LIST:
      list(connection, data, reply, refuse);
      return false;
    case OPTION.STRUCTURED_REPLY:
      if (data.byteLength > 0) refuse(REPLY.ERR_INVALID, 'no data expected');
      else {
        state.structured = true;
        reply(REPLY.ACK);
      }
      return false;
    case OPTION.LIST_META_CONTEXT:
    case OPTION.SET_META_CONTEXT:
      contexts(state, option, data, reply, refuse);
      return false;
    case OPTION.INFO:
    case OPTION.GO:
      return go(connection, state, option, data, reply, refuse);
    default:
      refuse(REPLY.ERR_UNSUP, 'unknown option');
      return false;
  }
}

type Reply = (type: number, body?: Uint8Array) => void;
type Refuse = (type: number, text: string) => void;

async function startTls(
  connection: ServerConnection,
  state: Negotiation,
  data: Uint8Array,
  refuse: Refuse,
): Promise<void> {
  const { tls } = connection.options;
  if (tls === undefined) return refuse(REPLY.ERR_POLICY, 'TLS is off');
  if (state.secure || data.byteLength > 0) return refuse(REPLY.ERR_INVALID, 'not here');
  connection.transport.write(encodeOptionReply(OPTION.STARTTLS, REPLY.ACK));
  await secureServer(connection, tls);
  Object.assign(state, { secure: true, structured: false, contextFor: undefined } satisfies Negotiation);
}

function list({ list: names }: ServerConnection, data: Uint8Array, reply: Reply, refuse: Refuse): void {
  if (data.byteLength > 0) refuse(REPLY.ERR_INVALID, 'no data expected');
  else if (names === undefined) refuse(REPLY.ERR_POLICY, 'exports are not listed');
  else {
    for (const name of names()) reply(REPLY.SERVER, stringBytes(name));
    reply(REPLY.ACK);
  }
}

function contexts(state: Negotiation, option: number, data: Uint8Array, reply: Reply, refuse: Refuse): void {
  const setting = option === OPTION.SET_META_CONTEXT;
  if (setting) state.contextFor = undefined; // a new set replaces the old one, even when it fails
  const parsed = parseContexts(data);
  if (parsed === undefined || !state.structured) {
    refuse(REPLY.ERR_INVALID, parsed === undefined ? 'malformed' : 'structured replies first');
    return;
  }
  const wanted = setting
    ? parsed.queries.includes(BASE_ALLOCATION)
    : parsed.queries.length === 0 || parsed.queries.some((query) => query === BASE_ALLOCATION || query === 'base:');
  if (wanted) reply(REPLY.META_CONTEXT, joinBytes(u32Bytes(SERVED_ALLOCATION_ID), Buffer.from(BASE_ALLOCATION)));
  if (setting && wanted) state.contextFor = parsed.name;
  reply(REPLY.ACK);
}

async function go(
  connection: ServerConnection,
  state: Negotiation,
  option: number,
  data: Uint8Array,
  reply: Reply,
  refuse: Refuse,
): Promise<boolean> {
  const parsed = parseGo(data);
  if (parsed === undefined) {
    refuse(REPLY.ERR_INVALID, 'malformed');
    return false;
  }
  const { name } = parsed;
  await step(connection, { kind: 'export', name });
  let over = false;
  await withKnownExport(connection, name, async (disk) => {
    if (disk === undefined) return refuse(REPLY.ERR_UNKNOWN, 'no such export');
    const flags = transmissionFlags(connection, disk, state.structured);
    reply(REPLY.INFO, infoExport.encode({ type: INFO.EXPORT, size: disk.size, flags }));
    for (const type of new Set(parsed.infos)) {
      if (type === INFO.NAME) reply(REPLY.INFO, joinBytes(u16Bytes(INFO.NAME), Buffer.from(name)));
      if (type === INFO.BLOCK_SIZE) {
        const sizes = { type: INFO.BLOCK_SIZE, minimum: 1, preferred: 64 * 1024, maximum: MAX_PAYLOAD };
        reply(REPLY.INFO, infoBlockSize.encode(sizes));
      }
    }
    reply(REPLY.ACK);
    if (option === OPTION.INFO) return;
    over = true;
    const hasContext = state.structured && state.contextFor === name;
    await serveRequests(connection, disk, { flags, structured: state.structured, hasContext });
  });
  return over;
}

async function exportByName(
  connection: ServerConnection,
  state: Negotiation,
  data: Uint8Array,
  noZeroes: boolean,
): Promise<void> {
  const name = Buffer.from(data).toString('utf8');
  await step(connection, { kind: 'export', name });
  await withKnownExport(connection, name, async (disk) => {
    if (disk === undefined) throw new Dropped('EXPORT_NAME cannot be refused in words');
    const flags = transmissionFlags(connection, disk, state.structured);
    const padding = new Uint8Array(noZeroes ? 0 : EXPORT_NAME_PADDING);
    connection.transport.write(joinBytes(exportNameReply.encode({ size: disk.size, flags }), padding));
    const hasContext = state.structured && state.contextFor === name;
    await serveRequests(connection, disk, { flags, structured: state.structured, hasContext });
  });
}

/** An export that cannot be opened looks like one that is not there; why stays in our log. */
async function withKnownExport(
  connection: ServerConnection,
  name: string,
  work: (disk: Disk | undefined) => Promise<void>,
): Promise<void> {
  let opened = false;
  try {
    await withExport(connection, name, (disk) => {
      opened = true;
      return work(disk);
    });
  } catch (error) {
    if (opened) throw error;
    log.debug('an export cannot be opened', { connection: connection.info.connectionId, why: String(error) });
    await work(undefined);
  }
}

function transmissionFlags({ options }: ServerConnection, disk: Disk, structured: boolean): number {
  const { HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF, SEND_CACHE } =
    TRANSMISSION;
  const all = HAS_FLAGS + SEND_FLUSH + SEND_FUA + TRANSMISSION.CAN_MULTI_CONN + SEND_CACHE + (structured ? SEND_DF : 0);
  if (options.readOnly === true || !isWritable(disk)) return all + READ_ONLY;
  return all + SEND_WRITE_ZEROES + (canTrim(disk) ? SEND_TRIM : 0);
}

/** Name and wanted infos of INFO and GO; `undefined` when malformed. */
function parseGo(data: Uint8Array): { name: string; infos: number[] } | undefined {
  const view = viewOf(data);
  const nameLength = data.byteLength < 6 ? Number.POSITIVE_INFINITY : view.getUint32(0);
  if (nameLength > MAX_STRING || data.byteLength < 6 + nameLength) return undefined;
  const count = view.getUint16(4 + nameLength);
  if (data.byteLength !== 6 + nameLength + 2 * count) return undefined;
  const infos = Array.from({ length: count }, (_, index) => view.getUint16(6 + nameLength + 2 * index));
  return { name: Buffer.from(data.subarray(4, 4 + nameLength)).toString('utf8'), infos };
}

/** Name and queries of LIST_META_CONTEXT and SET_META_CONTEXT; `undefined` when malformed. */
function parseContexts(data: Uint8Array): { name: string; queries: string[] } | undefined {
  const view = viewOf(data);
  let at = 0;
  const take = (): string | undefined => {
    const length = data.byteLength - at < 4 ? Number.POSITIVE_INFINITY : view.getUint32(at);
    if (length > MAX_STRING || data.byteLength - at - 4 < length) return undefined;
    at += 4 + length;
    return Buffer.from(data.subarray(at - length, at)).toString('utf8');
  };
  const name = take();
  if (name === undefined || data.byteLength - at < 4) return undefined;
  const count = view.getUint32(at);
  at += 4;
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    const query = take();
    if (query === undefined) return undefined; // a count too large ends here, before it costs anything
    queries.push(query);
  }
  return at === data.byteLength ? { name, queries } : undefined;
}
