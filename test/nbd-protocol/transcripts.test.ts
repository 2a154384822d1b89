import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { serveNbd } from '../../src/nbd-protocol/index.ts';
import { fakeServer } from './fake-server.ts';
import { content, type Transcript, transcripts } from './transcripts.ts';

function same(actual: Buffer, expected: Buffer, turn: number): void {
  // The first bytes in words, for the eyes; all of them for the verdict.
  expect(actual.subarray(0, 96).toString('hex'), `turn ${turn}`).toBe(expected.subarray(0, 96).toString('hex'));
  expect(Buffer.compare(actual, expected), `turn ${turn}`).toBe(0);
}

/** Says the client's part to our server. */
async function playClient({ turns, server: options = {} }: Transcript): Promise<void> {
  await using server = await serveNbd({ disk: memoryDisk(content()) }, options);
  const socket = connect(server.port, server.address);
  await once(socket, 'connect');
  let held = Buffer.alloc(0);
  const incoming = socket.iterator({ destroyOnReturn: false });
  for (const [turn, [who, ...parts]] of turns.entries()) {
    const expected = Buffer.concat(parts);
    if (who === 'client') {
      socket.write(expected);
      continue;
    }
    while (held.length < expected.length) {
      const { value, done } = await incoming.next();
      if (done === true) break;
      held = Buffer.concat([held, value as Buffer]);
    }
    same(held.subarray(0, expected.length), expected, turn);
    held = held.subarray(expected.length);
  }
  for (let next = await incoming.next(); next.done !== true; next = await incoming.next()) {
    held = Buffer.concat([held, next.value as Buffer]);
  }
  expect(held.toString('hex')).toBe('');
}

/** Says the server's part to our client. */
async function playServer({ turns, client }: Transcript): Promise<void> {
  let heard = 0;
  await using server = await fakeServer(async (peer) => {
    for (const [turn, [who, ...parts]] of turns.entries()) {
      const expected = Buffer.concat(parts);
      if (who === 'server') peer.send(expected);
      else same(await peer.read(expected.length), expected, turn);
      heard++;
    }
    peer.socket.end();
  });
  await client({ host: '127.0.0.1', port: server.port, exportName: 'disk', reconnect: { tries: 0 } });
  expect(heard).toBe(turns.length);
}

describe.each(transcripts)('$name', (transcript) => {
  test('the server says its part', () => playClient(transcript));
  test('the client says its part', () => playServer(transcript));
});
