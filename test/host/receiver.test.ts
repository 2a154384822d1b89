import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Receiver } from '../../src/host/receiver.ts';
import { type KeyPair, makeSelfSigned } from '../support/certificates.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

const KIB = 1024;
const WAYS = ['plain', 'TLS', 'by a proxy'] as const;
type Way = (typeof WAYS)[number];

let dir: TempDir;
let host: KeyPair;
beforeAll(async () => {
  dir = await makeTempDir();
  if (hasTool('openssl')) host = await makeSelfSigned(dir.path, 'host1.example');
});
afterAll(() => dir[Symbol.asyncDispose]());

test('after what has come, an error of the connection is told, again and again', async () => {
  let sender: Socket | undefined;
  await using open = await receiving('plain', true, (socket) => {
    sender = socket;
    socket.write(patterned(1000));
  });
  expect((await open.receiver.next())?.byteLength).toBe(1000);
  sender?.resetAndDestroy();
  await expect(open.receiver.next()).rejects.toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
  await expect(open.receiver.next()).rejects.toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
});

test('a socket that was closed before anybody listened is told', async () => {
  const socket = connectTcp({ host: '127.0.0.1', port: 1, lookup: () => {} });
  socket.on('error', () => {}).destroy();
  await once(socket, 'close');
  const receiver = new Receiver(true);
  receiver.attach(socket);
  await expect(receiver.next()).rejects.toMatchObject({ code: 'ECONNRESET' });
});

/** A receiver of what `send` sends, in one of the ways that a socket is opened. */
async function receiving(
  way: Way,
  reuseMemory: boolean,
  send: (socket: Socket) => void,
): Promise<{ receiver: Receiver; socket: Socket } & AsyncDisposable> {
  const receiver = new Receiver(reuseMemory);
  const { onread } = receiver;
  const accept = (socket: Socket) => void send(socket.on('error', () => {}));
  const server = way === 'plain' ? createServer(accept) : createTlsServer(host, accept);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const address = { host: '127.0.0.1', port };
  const opened = {
    plain: () => connectTcp({ ...address, onread }),
    TLS: () => connectTls({ ...address, ...{ onread }, rejectUnauthorized: false }), // the types do not know it
    'by a proxy': () => connectTls({ socket: connectTcp(address), rejectUnauthorized: false }),
  };
  const socket = opened[way]();
  receiver.attach(socket);
  return {
    receiver,
    socket,
    async [Symbol.asyncDispose]() {
      socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe.each(WAYS)('received %s', (way) => {
  describe.runIf(way === 'plain' || hasTool('openssl'))('', () => {
    test.each([false, true])(
      'whatever is sent at once: the bytes, once each (memory used again: %s)',
      async (reuse) => {
        const property = fc.asyncProperty(
          fc.array(fc.integer({ min: 1, max: 700 * KIB }), { maxLength: 8 }),
          fc.array(fc.nat(3), { maxLength: 6 }),
          async (sizes, pauses) => {
            const length = sizes.reduce((sum, size) => sum + size, 0);
            const sent = patterned(length, length + 1);
            await using open = await receiving(way, reuse, (socket) => {
              let at = 0;
              for (const size of sizes) {
                socket.write(sent.subarray(at, at + size));
                at += size;
              }
              socket.end();
            });
            const received = new Uint8Array(length);
            let at = 0;
            for (let turn = 0; ; turn++) {
              const piece = await open.receiver.next();
              if (piece === undefined) break;
              expect(piece.byteLength).toBeGreaterThan(0);
              // A slow reader: what arrives meanwhile must not touch the piece that it has.
              for (let i = pauses[turn % (pauses.length || 1)] ?? 0; i > 0; i--) await new Promise(setImmediate);
              received.set(piece, at);
              at += piece.byteLength;
            }
            expect(at).toBe(length);
            expect(Buffer.compare(received, sent)).toBe(0);
            expect(await open.receiver.next()).toBeUndefined();
          },
        );
        await fc.assert(property, { numRuns: 40 });
      },
    );

    test('a chunk is the caller’s own, unless memory is to be used again', async () => {
      const sent = patterned(3 * 1024 * KIB);
      await using open = await receiving(way, false, (socket) => void socket.end(sent));
      const pieces: Uint8Array[] = [];
      for (let piece = await open.receiver.next(); piece !== undefined; piece = await open.receiver.next()) {
        pieces.push(piece);
      }
      expect(Buffer.compare(Buffer.concat(pieces), sent)).toBe(0);
    });

    test('the memory of the caller’s own chunk may be given away while more arrives', async () => {
      let sender: Socket | undefined;
      await using open = await receiving(way, false, (socket) => {
        sender = socket;
        socket.write(patterned(100));
      });
      for (let i = 0; i < 4; i++) {
        const piece = await open.receiver.next();
        // As a ReadableStream of bytes, or a message to a thread, does with a chunk.
        const moved = structuredClone(piece!, { transfer: [piece!.buffer as ArrayBuffer] });
        expect(moved).toEqual(patterned(100));
        sender?.write(patterned(100));
      }
    });

    test('nobody reads: a little is received, the rest stays where it is', async () => {
      const sent = patterned(16 * 1024 * KIB);
      let sender: Socket | undefined;
      await using open = await receiving(way, true, (socket) => {
        sender = socket;
        socket.end(sent);
      });
      await open.receiver.next();
      for (let i = 0; i < 200; i++) await new Promise(setImmediate);
      const { bytesRead } = open.socket;
      expect(bytesRead).toBeLessThan(3 * 1024 * KIB);
      expect(sender?.writableFinished).toBe(false);
    });

    test('a socket that is destroyed ends a wait', async () => {
      await using open = await receiving(way, true, () => {});
      const waiting = open.receiver.next();
      await once(open.socket, way === 'plain' ? 'connect' : 'secureConnect');
      open.socket.destroy();
      await expect(waiting).rejects.toMatchObject({ code: 'ECONNRESET' });
      await expect(open.receiver.next()).rejects.toMatchObject({ code: 'ECONNRESET' });
    });
  });
});
