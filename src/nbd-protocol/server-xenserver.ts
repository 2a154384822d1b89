import type { Disk } from '../disk/index.ts';
import { COMMAND, ERRNO, HANDSHAKE, OPTION, REPLY, TRANSMISSION } from './constants.ts';
import { EXPORT_NAME_PADDING, encodeOptionReply, encodeSimpleReply, exportNameReply, joinBytes } from './messages.ts';
import {
  Dropped,
  greet,
  readOption,
  readRequest,
  type ServerConnection,
  secureServer,
  step,
  withExport,
} from './server-connection.ts';

/** The server's step of reading, in bytes. */
const PIECE = 512 * 1024;
const SECTOR = 512;

/**
 * A connection to XenServer's server (xapi-project/nbd `lib/server.ml`, xen-api `ocaml/nbd/src/main.ml`): EXPORT_NAME
 * only, simple replies, strictly one request after another, and the end of the connection as the answer to most
 * mistakes.
 */
export async function serveAsXenServer(connection: ServerConnection): Promise<void> {
  const { transport, options } = connection;
  const mode = await (options.mode?.() ?? (options.tls === undefined ? 'plain' : 'tls'));
  if (mode === 'closed') throw new Dropped('no network has a purpose for NBD');
  const flags = await greet(connection, HANDSHAKE.FIXED_NEWSTYLE);
  if (mode === 'tls') {
    if ((flags & HANDSHAKE.FIXED_NEWSTYLE) === 0) throw new Dropped('TLS needs the fixed newstyle');
    await awaitTls(connection);
  }
  const name = await negotiate(connection, mode === 'tls');
  if (name === undefined) return;
  await step(connection, { kind: 'export', name });
  await withExport(connection, name, async (disk) => {
    if (disk === undefined) throw new Dropped('the export cannot be attached');
    const reply = exportNameReply.encode({ size: disk.size, flags: TRANSMISSION.HAS_FLAGS + TRANSMISSION.READ_ONLY });
    transport.write(joinBytes(reply, new Uint8Array(EXPORT_NAME_PADDING)));
    await serveReads(connection, disk);
  });
}

async function awaitTls(connection: ServerConnection): Promise<void> {
  const { transport, options } = connection;
  for (;;) {
    const { option } = await transport.read(readOption());
    await step(connection, { kind: 'option', option });
    if (option === OPTION.STARTTLS) break;
    if (option === OPTION.EXPORT_NAME || option === OPTION.ABORT) throw new Dropped('before TLS');
    transport.write(encodeOptionReply(option, REPLY.ERR_TLS_REQD));
  }
  if (options.tls === undefined) throw new Error('NBD server: mode "tls" needs a certificate');
  transport.write(encodeOptionReply(OPTION.STARTTLS, REPLY.ACK));
  await secureServer(connection, options.tls);
}

/** The export's name, or `undefined` when the client has said goodbye. */
async function negotiate(connection: ServerConnection, secure: boolean): Promise<string | undefined> {
  const { transport } = connection;
  for (;;) {
    const { option, data } = await transport.read(readOption());
    await step(connection, { kind: 'option', option });
    switch (option) {
      case OPTION.EXPORT_NAME:
        return Buffer.from(data).toString('utf8');
      case OPTION.ABORT:
        transport.write(encodeOptionReply(option, REPLY.ACK));
        return undefined;
      case OPTION.STARTTLS:
        transport.write(encodeOptionReply(option, secure ? REPLY.ERR_INVALID : REPLY.ERR_POLICY));
        break;
      case OPTION.LIST:
        transport.write(encodeOptionReply(option, REPLY.ERR_POLICY));
        break;
      default:
        transport.write(encodeOptionReply(option, REPLY.ERR_UNSUP));
    }
  }
}

async function serveReads(connection: ServerConnection, disk: Disk): Promise<void> {
  const { transport } = connection;
  connection.established();
  for (;;) {
    const request = await transport.read(readRequest());
    const { type, flags, offset, length } = request;
    if (type === COMMAND.DISC && flags === 0) return;
    const verdict = await step(connection, { kind: 'request', type, offset, length });
    const errno = typeof verdict === 'object' ? verdict.errno : refusal(type, flags, offset, length);
    if (errno !== 0) {
      transport.write(encodeSimpleReply(errno, request));
      return; // the real one leaves its loop after any error
    }
    transport.write(encodeSimpleReply(0, request)); // before it has read a byte
    await sendData(connection, disk, offset, verdict === 'cut' ? Math.floor(length / 2) : length);
    if (verdict === 'cut') throw new Dropped('by a hook, within data');
  }
}

function refusal(type: number, flags: number, offset: number, length: number): number {
  if (type === COMMAND.WRITE && flags === 0) return ERRNO.EPERM;
  if (type !== COMMAND.READ || flags !== 0) return ERRNO.EINVAL;
  return offset % SECTOR === 0 && length % SECTOR === 0 ? 0 : ERRNO.EINVAL;
}

async function sendData(connection: ServerConnection, disk: Disk, offset: number, length: number): Promise<void> {
  const { transport, signal } = connection;
  for (let at = 0; at < length; at += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, length - at));
    if (offset + at + piece.byteLength > disk.size) throw new Dropped('a read past the end');
    await disk.readInto(piece, offset + at, { signal });
    transport.write(piece);
    await transport.drained();
    if (transport.socket.destroyed) throw new Dropped('the client has gone');
  }
}
