/**
 * The classic way to read over NBD in Node, kept to measure ours against: chunks of the socket are put together with
 * `Buffer.concat` until a reply is whole. One connection over a Unix socket, EXPORT_NAME, simple replies.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const REQUEST_SIZE = 1024 * 1024;
const IN_FLIGHT = 4;

class ConcatReader {
  readonly #socket: Socket;
  #held = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  async read(length: number): Promise<Buffer> {
    while (this.#held.byteLength < length) {
      const chunk = this.#socket.read() as Buffer | null;
      if (chunk === null) await once(this.#socket, 'readable');
      else this.#held = Buffer.concat([this.#held, chunk]);
    }
    const bytes = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return bytes;
  }
}

/** Reads the whole default export, and checks that every reply is a success. */
export async function readClassically(socketPath: string): Promise<void> {
  const socket = connect(socketPath);
  const reader = new ConcatReader(socket);
  await reader.read(18); // NBDMAGIC, IHAVEOPT, flags
  const hello = Buffer.alloc(20);
  hello.writeUInt32BE(3, 0); // FIXED_NEWSTYLE, NO_ZEROES
  hello.write('IHAVEOPT', 4);
  hello.writeUInt32BE(1, 12); // EXPORT_NAME, of length 0
  socket.write(hello);
  const size = Number((await reader.read(10)).readBigUInt64BE(0));
  let asked = 0;
  const ask = () => {
    if (asked >= size) return;
    const request = Buffer.alloc(28);
    request.writeUInt32BE(0x25609513, 0);
    request.writeBigUInt64BE(BigInt(asked), 16);
    request.writeUInt32BE(Math.min(REQUEST_SIZE, size - asked), 24);
    socket.write(request);
    asked += REQUEST_SIZE;
  };
  for (let i = 0; i < IN_FLIGHT; i++) ask();
  for (let at = 0; at < size; at += REQUEST_SIZE) {
    const header = await reader.read(16);
    if (header.readUInt32BE(4) !== 0) throw new Error(`the server answered with error ${header.readUInt32BE(4)}`);
    await reader.read(Math.min(REQUEST_SIZE, size - at));
    ask();
  }
  socket.destroy();
}
