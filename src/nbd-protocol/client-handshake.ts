import { BackupError, createLog, FormatError } from '../core/index.ts';
import { secureClient } from './client-tls.ts';
import {
  BASE_ALLOCATION,
  HANDSHAKE,
  INFO,
  INIT_MAGIC,
  OLDSTYLE_MAGIC,
  OPTION,
  OPTION_MAGIC,
  REPLY,
  TRANSMISSION,
} from './constants.ts';
import { ConnectionEnded, type NbdError, type NbdStage, violation } from './errors.ts';
import {
  clientFlags,
  EXPORT_NAME_PADDING,
  encodeOption,
  exportNameReply,
  greeting,
  infoBlockSize,
  infoExport,
  joinBytes,
  newstyleFlags,
  oldstyleExport,
  stringBytes,
  u16Bytes,
  u32Bytes,
  viewOf,
} from './messages.ts';
import { describeRefusal, exchangeOption, type OptionOutcome, takeString } from './option-exchange.ts';
import type { Settings } from './settings.ts';
import { type Reading, type Transport, within } from './transport.ts';

const log = createLog('nbd');

/** What the server announced about the sizes of requests, in bytes. */
export interface BlockSizes {
  /** Offsets and lengths must be multiples of this. */
  readonly minimum: number;
  readonly preferred: number;
  /** The longest payload. */
  readonly maximum: number;
}

/** What a handshake agreed on. */
export interface Session {
  /** The export's, in bytes. */
  readonly size: number;
  /** Transmission flags. */
  readonly flags: number;
  readonly structured: boolean;
  /** The metadata contexts that were agreed on, each with its id on this connection. Zero is as good as any other. */
  readonly contexts: ReadonlyMap<string, number>;
  readonly blockSizes: BlockSizes | undefined;
}

type Greeting =
  | { readonly style: 'oldstyle'; readonly session: Session }
  | { readonly style: 'newstyle' | 'fixed'; readonly noZeroes: boolean };

export interface HandshakeCall {
  readonly settings: Settings;
  readonly signal: AbortSignal | undefined;
}

/**
 * Leads a fresh connection to its transmission phase.
 *
 * @throws NbdError, which names the stage. Where the server lives, it was told that we go.
 */
export async function openExport(transport: Transport, call: HandshakeCall): Promise<Session> {
  const { settings } = call;
  const start = await startNegotiation(transport, call);
  if (start.style === 'oldstyle') {
    if (settings.exportName === '') return checkSession(start.session, settings);
    throw settings.fail('NBD_NOT_SUPPORTED', 'greeting', 'an oldstyle server has no named exports');
  }
  if (settings.profile === 'xenserver' || start.style === 'newstyle') {
    return checkSession(await exportByName(transport, call, start.noZeroes), settings);
  }
  const agreed = await agreeOnReplies(transport, call);
  const outcome = await stage(transport, call, 'export', settings.timeouts.exportMs, () =>
    exchangeOption(
      transport,
      OPTION.GO,
      joinBytes(stringBytes(settings.exportName), u16Bytes(1), u16Bytes(INFO.BLOCK_SIZE)),
      {
        allowed: [REPLY.INFO],
      },
    ),
  );
  if (outcome.ok) {
    const session = await stage(transport, call, 'export', 0, async () => sessionOf(outcome, agreed));
    return checkSession(session, settings);
  }
  if (outcome.type !== REPLY.ERR_UNSUP) throw await refuse(transport, call, 'export', outcome);
  const session = await exportByName(transport, call, start.noZeroes);
  return checkSession({ ...session, ...agreed }, settings);
}

/** Greeting, client flags and TLS: what comes before any option that tells the server something. */
export async function startNegotiation(transport: Transport, call: HandshakeCall): Promise<Greeting> {
  const { settings } = call;
  const { tls, timeouts } = settings;
  const start = await stage(transport, call, 'greeting', timeouts.greetingMs, () => transport.read(readGreeting()));
  if (start.style !== 'fixed' && tls !== undefined) {
    transport.destroy();
    throw settings.fail(
      'NBD_TLS_REFUSED',
      'greeting',
      `TLS is required, and a server that speaks ${start.style} has none`,
    );
  }
  if (start.style === 'oldstyle') return start;
  // The flags travel in clear: with NO_ZEROES someone in the middle could shift the answer to EXPORT_NAME.
  const noZeroes = start.noZeroes && tls === undefined;
  const fixed = start.style === 'fixed' ? HANDSHAKE.FIXED_NEWSTYLE : 0;
  transport.write(clientFlags.encode({ flags: fixed + (noZeroes ? HANDSHAKE.NO_ZEROES : 0) }));
  if (tls !== undefined) await startTls(transport, call);
  return { ...start, noZeroes };
}

async function startTls(transport: Transport, call: HandshakeCall): Promise<void> {
  const { settings } = call;
  const outcome = await stage(transport, call, 'tls', settings.timeouts.tlsMs, () =>
    exchangeOption(transport, OPTION.STARTTLS),
  );
  if (!outcome.ok) {
    await leave(transport, call);
    throw settings.fail('NBD_TLS_REFUSED', 'tls', `the server refuses TLS: ${describeRefusal(outcome)}`);
  }
  await stage(transport, call, 'tls', settings.timeouts.tlsMs, () =>
    transport.upgrade((socket) => secureClient(socket, settings)),
  );
}

function* readGreeting(): Reading<Greeting> {
  const bytes = new Uint8Array(greeting.size);
  yield bytes;
  const { initMagic, styleMagic } = greeting.decode(bytes);
  if (initMagic !== INIT_MAGIC)
    throw violation('magic of the greeting', INIT_MAGIC.toString(16), initMagic.toString(16));
  if (styleMagic === OLDSTYLE_MAGIC) {
    const rest = new Uint8Array(oldstyleExport.size);
    yield rest;
    const { size, flags } = oldstyleExport.decode(rest, greeting.size);
    return { style: 'oldstyle', session: plainSession(size, flags & 0xffff) };
  }
  if (styleMagic !== OPTION_MAGIC) {
    throw violation('style of the greeting', OPTION_MAGIC.toString(16), styleMagic.toString(16));
  }
  const rest = new Uint8Array(newstyleFlags.size);
  yield rest;
  const { flags } = newstyleFlags.decode(rest, greeting.size);
  return {
    style: (flags & HANDSHAKE.FIXED_NEWSTYLE) !== 0 ? 'fixed' : 'newstyle',
    noZeroes: (flags & HANDSHAKE.NO_ZEROES) !== 0,
  };
}

/** Structured replies, base:allocation and the contexts that were asked for, as far as the server has them. */
async function agreeOnReplies(
  transport: Transport,
  call: HandshakeCall,
): Promise<Pick<Session, 'structured' | 'contexts'>> {
  const { timeouts, exportName } = call.settings;
  const names = [...new Set([BASE_ALLOCATION, ...call.settings.contexts])];
  const option = (code: number, data?: Uint8Array, allowed: number[] = []) =>
    stage(transport, call, 'negotiation', timeouts.optionMs, () => exchangeOption(transport, code, data, { allowed }));
  const structured = await option(OPTION.STRUCTURED_REPLY);
  if (!structured.ok) {
    if (structured.type === REPLY.ERR_TLS_REQD || structured.type === REPLY.ERR_SHUTDOWN) {
      throw await refuse(transport, call, 'negotiation', structured);
    }
    return { structured: false, contexts: new Map() };
  }
  const query = joinBytes(stringBytes(exportName), u32Bytes(names.length), ...names.map(stringBytes));
  const contexts = await option(OPTION.SET_META_CONTEXT, query, [REPLY.META_CONTEXT]);
  if (!contexts.ok) log.debug('no block status', { server: call.settings.peer.server, why: describeRefusal(contexts) });
  const replies = contexts.ok ? contexts.replies : [];
  return {
    structured: true,
    contexts: contextsOf(
      replies.map(({ data }) => data),
      names,
    ),
  };
}

/** Ids by name. What was not asked for is passed over; one id for two contexts would mix their extents up. */
function contextsOf(replies: readonly Uint8Array[], asked: readonly string[]): ReadonlyMap<string, number> {
  const contexts = new Map<string, number>();
  for (const data of replies) {
    if (data.byteLength < 4) throw violation('length of a metadata context', 'at least 4', data.byteLength);
    const id = viewOf(data).getUint32(0);
    const name = Buffer.from(data.subarray(4)).toString('utf8');
    if (!asked.includes(name)) continue;
    if ([...contexts.values()].includes(id)) throw violation('id of a metadata context', 'one of its own', id);
    contexts.set(name, id);
  }
  return contexts;
}

function sessionOf(outcome: OptionOutcome & { ok: true }, agreed: Pick<Session, 'structured' | 'contexts'>): Session {
  let session: Session | undefined;
  let blockSizes: BlockSizes | undefined;
  for (const { data } of outcome.replies) {
    if (data.byteLength < 2) throw violation('length of an info reply', 'at least 2', data.byteLength);
    const type = viewOf(data).getUint16(0);
    if (type === INFO.EXPORT) {
      const { size, flags } = infoExport.decode(data);
      session = { ...plainSession(size, flags), ...agreed };
    } else if (type === INFO.BLOCK_SIZE) blockSizes = saneBlockSizes(infoBlockSize.decode(data));
  }
  if (session === undefined) throw violation('answer to GO', 'NBD_INFO_EXPORT', 'none');
  return { ...session, blockSizes };
}

/** Sizes that break the specification's own rules are not obeyed, but refused: every request could be wrong. */
function saneBlockSizes({ minimum, preferred, maximum }: BlockSizes): BlockSizes {
  const power = (value: number) => value > 0 && Number.isInteger(Math.log2(value));
  if (!power(minimum) || minimum > 65536 || !power(preferred) || preferred < minimum || maximum < minimum) {
    throw violation('block sizes', 'powers of two, ascending', `${minimum}, ${preferred}, ${maximum}`);
  }
  return { minimum, preferred, maximum };
}

/** EXPORT_NAME cannot be refused with words: whatever is wrong, the server closes. */
async function exportByName(transport: Transport, call: HandshakeCall, noZeroes: boolean): Promise<Session> {
  const { exportName, timeouts } = call.settings;
  return stage(transport, call, 'export', timeouts.exportMs, () => {
    transport.write(encodeOption(OPTION.EXPORT_NAME, Buffer.from(exportName, 'utf8')));
    return transport.read(readExportName(noZeroes));
  });
}

function* readExportName(noZeroes: boolean): Reading<Session> {
  const bytes = new Uint8Array(exportNameReply.size);
  yield bytes;
  if (!noZeroes) yield new Uint8Array(EXPORT_NAME_PADDING);
  const { size, flags } = exportNameReply.decode(bytes);
  return plainSession(size, flags);
}

function plainSession(size: number, flags: number): Session {
  return { size, flags, structured: false, contexts: new Map(), blockSizes: undefined };
}

function checkSession(session: Session, settings: Settings): Session {
  if ((session.flags & TRANSMISSION.HAS_FLAGS) !== 0) return session;
  throw settings.fail('NBD_PROTOCOL', 'export', `transmission flags 0x${session.flags.toString(16)} lack bit 0`);
}

/** The server's exports. */
export async function listExports(
  transport: Transport,
  call: HandshakeCall,
  limit: number,
): Promise<{ name: string; description: string }[]> {
  const { settings } = call;
  const start = await startNegotiation(transport, call);
  if (start.style !== 'fixed') {
    transport.destroy();
    throw settings.fail('NBD_NOT_SUPPORTED', 'negotiation', 'the server is too old to list its exports');
  }
  const rules = { allowed: [REPLY.SERVER], limit };
  const outcome = await stage(transport, call, 'negotiation', settings.timeouts.optionMs, () =>
    exchangeOption(transport, OPTION.LIST, undefined, rules),
  );
  if (!outcome.ok) throw await refuse(transport, call, 'negotiation', outcome);
  const exports = await stage(transport, call, 'negotiation', 0, async () =>
    outcome.replies.map(({ data }) => {
      const { text, rest } = takeString(data, 'an export in the list');
      return { name: text, description: Buffer.from(rest).toString('utf8') };
    }),
  );
  await leave(transport, call);
  return exports;
}

/** Says goodbye in the handshake. What the server answers, and whether, does not matter: some answer with a reset. */
async function leave(transport: Transport, { settings }: HandshakeCall): Promise<void> {
  transport.write(encodeOption(OPTION.ABORT));
  transport.end();
  await transport.awaitClose(Math.min(settings.timeouts.disconnectMs, 5000));
}

async function refuse(
  transport: Transport,
  call: HandshakeCall,
  at: NbdStage,
  refusal: { type: number; message: string },
): Promise<NbdError> {
  await leave(transport, call);
  const text = describeRefusal(refusal);
  const { fail } = call.settings;
  switch (refusal.type) {
    case REPLY.ERR_UNKNOWN:
      return fail('NBD_EXPORT_UNKNOWN', at, `the server has no such export, or cannot open it: ${text}`);
    case REPLY.ERR_TLS_REQD:
      return fail('NBD_TLS_REQUIRED', at, `the server demands TLS, which was not asked for: ${text}`);
    case REPLY.ERR_SHUTDOWN:
      return fail('NBD_SHUTDOWN', at, `the server is going down: ${text}`, { retryable: true });
    default:
      return fail('NBD_REFUSED', at, `the server refused: ${text}`);
  }
}

/** Runs one step under its deadline; what goes wrong becomes an error that names the step. `ms` 0: no deadline. */
async function stage<T>(
  transport: Transport,
  { settings, signal }: HandshakeCall,
  at: NbdStage,
  ms: number,
  work: () => Promise<T>,
): Promise<T> {
  const { clock, fail } = settings;
  const late = () => fail('NBD_TIMEOUT', at, `no answer within ${ms} ms`, { retryable: true });
  try {
    return ms === 0 ? await work() : await within(transport, { clock, ms, signal, late }, work);
  } catch (error) {
    transport.destroy();
    if (error instanceof ConnectionEnded) throw ended(settings, at, error);
    if (error instanceof FormatError) throw fail('NBD_PROTOCOL', at, error.message, { cause: error });
    if (error instanceof BackupError || error === signal?.reason) throw error;
    throw fail('NBD_CONNECTION_LOST', at, String(error), { cause: error, retryable: true });
  }
}

/** What a connection that ended at this stage means. */
function ended({ fail }: Settings, at: NbdStage, error: ConnectionEnded): NbdError {
  const options = { cause: error, retryable: true };
  if (at === 'greeting' && !error.partial) {
    const text =
      'the server closed before its greeting: it is full, or starting, or this network has no purpose for NBD';
    return fail('NBD_NO_GREETING', at, text, options);
  }
  if (at === 'export') {
    const text = 'the server closed instead of opening the export: session, disk or attachment failed on its side';
    return fail('NBD_EXPORT_CLOSED', at, text, options);
  }
  return fail('NBD_CONNECTION_LOST', at, error.message, options);
}
