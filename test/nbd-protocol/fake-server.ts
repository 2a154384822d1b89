import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

/** One client, as a scripted server sees it. The wire is written down here anew, so that no mistake of ours is shared. */
export interface FakePeer {
  /** Exactly `length` bytes from the client; rejects when it has gone. */
  read(length: number): Promise<Buffer>;
  /** Sends; numbers are bytes, strings are hexadecimal. */
  send(...parts: (Buffer | string | number[])[]): void;
  /** Reads one option: its number and data. */
  option(): Promise<{ option: number; data: Buffer }>;
  /** Reads one request. */
  request(): Promise<{ flags: number; type: number; cookie: Buffer; offset: bigint; length: number }>;
  /** Greeting with fixed newstyle and no zeroes; reads the client's flags. */
  greet(): Promise<Buffer>;
  /** Answers options up to GO: structured replies and base:allocation with id 7 as told, size in bytes. */
  negotiate(options: { structured: boolean; size: bigint; flags?: number }): Promise<void>;
  readonly socket: Socket;
  /** Resolves when the client has closed. */
  readonly gone: Promise<void>;
}

export interface FakeServer extends AsyncDisposable {
  readonly uri: string;
  readonly port: number;
  /** How many connections came. */
  readonly connectionCount: number;
}

export const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
export const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
};

export const optionReply = (option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(option), u32(type), u32(data.length), data]);

export const chunk = (flags: number, type: number, cookie: Buffer, ...payload: Buffer[]): Buffer => {
  const data = Buffer.concat(payload);
  return Buffer.concat([Buffer.from('668e33ef', 'hex'), u16(flags), u16(type), cookie, u32(data.length), data]);
};

export const simple = (errno: number, cookie: Buffer, data: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([Buffer.from('67446698', 'hex'), u32(errno), cookie, data]);

export const ACK = 1;
export const UNSUP = 0x80000001;

/** Runs `script` for each connection, with its number from 0; what the client broke off is no failure of the script. */
export async function fakeServer(script: (peer: FakePeer, connection: number) => Promise<void>): Promise<FakeServer> {
  const sockets = new Set<Socket>();
  let connectionCount = 0;
  const failures: unknown[] = [];
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    const peer = peerOf(socket);
    script(peer, connectionCount++).catch((error: unknown) => {
      if (!(error instanceof ClientGone)) failures.push(error);
      socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    uri: `nbd://127.0.0.1:${port}/x`,
    port,
    get connectionCount() {
      return connectionCount;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      if (failures.length > 0) throw failures[0];
    },
  };
}

class ClientGone extends Error {}

function peerOf(socket: Socket): FakePeer {
  let buffered = Buffer.alloc(0);
  let ended = false;
  let wake = () => {};
  const gone = Promise.withResolvers<void>();
  socket.on('data', (bytes) => {
    buffered = Buffer.concat([buffered, bytes]); // small scripts only
    wake();
  });
  socket.on('close', () => {
    ended = true;
    gone.resolve();
    wake();
  });
  const read = async (length: number): Promise<Buffer> => {
    while (buffered.length < length) {
      if (ended) throw new ClientGone('the client has gone');
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
    const bytes = buffered.subarray(0, length);
    buffered = buffered.subarray(length);
    return bytes;
  };
  const send = (...parts: (Buffer | string | number[])[]) => {
    socket.write(
      Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'hex') : Buffer.from(part)))),
    );
  };
  const option = async () => {
    const head = await read(16);
    return { option: head.readUInt32BE(8), data: await read(head.readUInt32BE(12)) };
  };
  const greet = async () => {
    send(Buffer.from('NBDMAGICIHAVEOPT'), u16(3));
    return read(4);
  };
  return {
    socket,
    gone: gone.promise,
    read,
    send,
    option,
    greet,
    async request() {
      const head = await read(28);
      return {
        flags: head.readUInt16BE(4),
        type: head.readUInt16BE(6),
        cookie: Buffer.from(head.subarray(8, 16)),
        offset: head.readBigUInt64BE(16),
        length: head.readUInt32BE(24),
      };
    },
    async negotiate({ structured, size, flags = 0x8f }) {
      for (;;) {
        const { option: number } = await option();
        if (number === 8) send(optionReply(8, structured ? ACK : UNSUP));
        else if (number === 10)
          send(optionReply(10, 4, Buffer.concat([u32(7), Buffer.from('base:allocation')])), optionReply(10, ACK));
        else if (number === 7) {
          send(optionReply(7, 3, Buffer.concat([u16(0), u64(size), u16(flags)])), optionReply(7, ACK));
          return;
        } else send(optionReply(number, UNSUP));
      }
    },
  };
}
