import { once } from 'node:events';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BackupError } from '../../src/core/index.ts';
import type { Host, HostExchange } from '../../src/host/index.ts';
import { patterned } from '../support/patterned.ts';
import { ERROR_PAGE, HEAD_200, Refused, type ScriptedHost, scriptedHost } from './support/scripted-host.ts';

const VDI = '1b6b1a4c-0000-4000-8000-00000000000a';
const SIZE = 300_000;

let remote: ScriptedHost;
let host: Host;
let vdi = { uuid: VDI, virtual_size: SIZE };

beforeEach(async () => {
  remote = await scriptedHost();
  vdi = { uuid: VDI, virtual_size: SIZE };
  const vm = { uuid: '1b6b1a4c-0000-4000-8000-00000000000b', name_label: 'vm' };
  remote.methods['VDI.get_by_uuid'] = () => 'OpaqueRef:vdi';
  remote.methods['VDI.get_record'] = () => vdi;
  remote.methods['VDI.get_VBDs'] = () => [];
  remote.methods['VM.get_by_uuid'] = () => 'OpaqueRef:vm';
  remote.methods['VM.get_record'] = () => vm;
  host = await remote.connect({ limits: { transfers: 1 }, timeouts: { cleanUpMs: 400 } });
});
afterEach(async () => {
  await host.close();
  expect(remote.tasks.size, 'tasks left on the host').toBe(0);
  await remote[Symbol.asyncDispose]();
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk.slice());
  return Buffer.concat(parts);
}

async function failure(work: Promise<unknown>): Promise<BackupError> {
  const error = await work.then(
    () => expect.fail('expected a rejection'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BackupError);
  const [session = 'none'] = remote.sessions;
  const whole = inspect(error, { depth: 20, showHidden: true, getters: true }); // with all causes
  const shown = [(error as Error).message, (error as Error).stack, JSON.stringify(error), whole].join('\n');
  expect(shown).not.toContain(session.replace('OpaqueRef:', ''));
  return error as BackupError;
}

const readAll = async (options?: Parameters<Host['exportDisk']>[1]) =>
  drain((await host.exportDisk(VDI, options)).chunks);

/** Compares by bytes: `toEqual` takes seconds. */
const equals = (bytes: Buffer) => (other: Uint8Array) => bytes.equals(other);

/** With one slot for transfers, a second one runs only if the first one gave it back. */
async function expectSlotFree(): Promise<void> {
  vdi.virtual_size = SIZE;
  remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
    socket.end(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE)]));
    remote.endTask(query.get('task_id')!, {});
  };
  expect(await readAll()).toHaveLength(SIZE);
}

const stream = (bytes: Uint8Array, piece = 64 * 1024) => ({
  length: bytes.byteLength,
  chunks: (async function* () {
    for (let at = 0; at < bytes.byteLength; at += piece) yield bytes.subarray(at, at + piece);
  })(),
});

describe('exportDisk', () => {
  test('gives the bytes, with session and task in the query, and leaves nothing', async () => {
    const content = patterned(SIZE);
    let query = new URLSearchParams();
    remote.handlers['/export_raw_vdi'] = (request) => {
      query = request.query;
      request.socket.end(Buffer.concat([Buffer.from(HEAD_200), content]));
      remote.endTask(query.get('task_id')!, {});
    };
    expect(content).toSatisfy(equals(await readAll()));
    const [session] = remote.sessions;
    expect(Object.fromEntries(query)).toEqual({
      vdi: VDI,
      format: 'raw',
      session_id: session,
      task_id: expect.stringContaining('OpaqueRef:'),
    });
    await expectSlotFree();
  });

  test('ends only when the control domain has let go of the disk', async () => {
    let looks = 0;
    remote.methods['VDI.get_VBDs'] = () => (++looks < 3 ? ['OpaqueRef:vbd'] : []);
    remote.methods['VBD.get_record'] = () => ({ uuid: 'vbd', VM: 'OpaqueRef:dom0' });
    remote.methods['VM.get_record'] = () => ({ uuid: 'dom0', is_control_domain: true });
    await expectSlotFree();
    expect(looks).toBe(3);
  });

  test('a VHD with a base: both uuids in the query', async () => {
    remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      socket.end(`${HEAD_200}${query.get('format')} ${query.get('base')}`);
      remote.endTask(query.get('task_id')!, {});
    };
    expect((await readAll({ format: 'vhd', base: VDI })).toString()).toBe(`vhd ${VDI}`);
    await expect(host.exportDisk(VDI, { base: VDI })).rejects.toThrow(TypeError);
  });

  test('all bytes came, but the task fails: TRANSFER_FAILED with the host’s code', async () => {
    remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      socket.end(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE)]));
      remote.endTask(query.get('task_id')!, { status: 'failure', error_info: ['VDI_IO_ERROR', 'Device I/O errors'] });
    };
    expect(await failure(readAll())).toMatchObject({
      code: 'TRANSFER_FAILED',
      xapiCode: 'VDI_IO_ERROR',
      xapiParams: ['Device I/O errors'],
    });
    await expectSlotFree();
  });

  test.each([
    ['instead of the body', 0],
    ['after a part of it', 100_000],
    ['after all of it', SIZE],
  ])('an error page %s, and a failed task', async (_, length) => {
    remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      socket.end(Buffer.concat([Buffer.from(HEAD_200), patterned(length), Buffer.from(ERROR_PAGE)]));
      remote.endTask(query.get('task_id')!, {
        status: 'failure',
        error_info: ['SR_BACKEND_FAILURE_46', '', 'in use', ''],
      });
    };
    expect(await failure(readAll())).toMatchObject({ code: 'TRANSFER_FAILED', xapiCode: 'SR_BACKEND_FAILURE_46' });
  });

  test.each(['raw', 'vhd'] as const)(
    'an error page after %s bytes is refused even if the task claims success',
    async (format) => {
      remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
        socket.end(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE), Buffer.from(ERROR_PAGE)]));
        remote.endTask(query.get('task_id')!, {});
      };
      expect(await failure(readAll({ format }))).toMatchObject({ code: 'TRANSFER_FAILED' });
    },
  );

  test('a disk whose content looks like an error page is a disk', async () => {
    const content = patterned(SIZE);
    content.set(Buffer.from(ERROR_PAGE), 0);
    content.set(Buffer.from(ERROR_PAGE), SIZE - ERROR_PAGE.length);
    remote.handlers['/export_raw_vdi'] = async ({ query, socket }) => {
      socket.end(Buffer.concat([Buffer.from(HEAD_200), content]));
      await once(socket, 'finish');
      remote.endTask(query.get('task_id')!, {});
    };
    expect(content).toSatisfy(equals(await readAll()));
  });

  test.each([
    ['closed', 'raw'],
    ['closed, though the task claims success,', 'raw'],
    ['reset', 'raw'],
    ['closed, though the task claims success,', 'vhd'],
    ['closed while the task goes on', 'vhd'],
    ['reset', 'vhd'],
  ] as const)('a connection that is %s midway of a %s export is TRANSFER_CUT', async (how, format) => {
    remote.handlers['/export_raw_vdi'] = ({ query, socket, reset }) => {
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE / 2)]), () => {
        if (how.startsWith('closed')) socket.end();
        else reset();
        if (how.includes('success')) remote.endTask(query.get('task_id')!, {});
      });
    };
    const error = await failure(readAll({ format, wholeLength: () => SIZE }));
    expect(error).toMatchObject({ code: 'TRANSFER_CUT', retryable: true });
    await expectSlotFree();
  });

  test('a host that stops sending is TIMEOUT', async () => {
    await host.close();
    host = await remote.connect({ timeouts: { idleMs: 100, cleanUpMs: 400 }, limits: { transfers: 1 } });
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(1000)]));
    };
    expect(await failure(readAll())).toMatchObject({ code: 'TIMEOUT', retryable: true });
    await expectSlotFree();
  });

  test('a host that never answers is TIMEOUT', async () => {
    await host.close();
    host = await remote.connect({ timeouts: { firstByteMs: 100, cleanUpMs: 400 }, limits: { transfers: 1 } });
    remote.handlers['/export_raw_vdi'] = () => {};
    expect(await failure(readAll())).toMatchObject({ code: 'TIMEOUT' });
    await expectSlotFree();
  });

  test.each([
    ['closes', (socket: { end(): void }) => socket.end()],
    ['resets', (_: unknown, reset: () => void) => reset()],
  ])('a host that %s the connection instead of an answer is HOST_UNREACHABLE', async (_, how) => {
    remote.handlers['/export_raw_vdi'] = ({ socket, reset }) => how(socket, reset);
    expect(await failure(readAll())).toMatchObject({ code: 'HOST_UNREACHABLE', retryable: true });
    await expectSlotFree();
  });

  test.each([401, 403, 404, 500])('status %i, with a task that nobody touched', async (status) => {
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 2\r\n\r\nno`);
    };
    expect(await failure(readAll())).toMatchObject({ code: 'TRANSFER_FAILED', facts: { status } });
    await expectSlotFree();
  });

  test('status 500 with a failed task tells the host’s code', async () => {
    remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      remote.endTask(query.get('task_id')!, {
        status: 'failure',
        error_info: ['VDI_INCOMPATIBLE_TYPE', 'r', 'cbt_metadata'],
      });
      socket.end(ERROR_PAGE);
    };
    expect(await failure(readAll())).toMatchObject({ code: 'TRANSFER_FAILED', xapiCode: 'VDI_INCOMPATIBLE_TYPE' });
  });

  test('an abort midway rejects with its reason, cancels the task and gives the slot back', async () => {
    let closed: Promise<unknown> = Promise.resolve();
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      closed = once(socket, 'close');
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(1000)]));
    };
    const abort = new AbortController();
    const reason = new Error('stop');
    const running = await host.exportDisk(VDI, { signal: abort.signal });
    await expect(
      (async () => {
        for await (const _ of running.chunks) abort.abort(reason);
      })(),
    ).rejects.toBe(reason);
    await closed;
    expect(remote.calls.map(({ method }) => method)).toEqual(expect.arrayContaining(['task.cancel', 'task.destroy']));
    expect(remote.tasks.size).toBe(0);
    await expectSlotFree();
  });

  test('leaving the loop, and close() without a loop, end the transfer and its task', async () => {
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(1000)]));
    };
    for await (const _ of (await host.exportDisk(VDI)).chunks) break;
    expect(remote.tasks.size).toBe(0);
    const unread = await host.exportDisk(VDI);
    expect(remote.tasks.size).toBe(1);
    await unread.close();
    expect(remote.tasks.size).toBe(0);
    await expectSlotFree();
  });

  test('closing the connection ends what runs, before the session ends', async () => {
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(1000)]));
    };
    const running = await host.exportDisk(VDI);
    await host.close();
    expect(remote.tasks.size).toBe(0);
    expect(await failure(drain(running.chunks))).toBeInstanceOf(BackupError);
  });

  test('closing the connection while a transfer begins: its task, made meanwhile, is destroyed all the same', async () => {
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<void>();
    const create = remote.methods['task.create'] as (name: string) => string;
    remote.methods['task.create'] = (async (name: string) => {
      asked.resolve();
      await answer.promise;
      return create(name);
    }) as never;
    const beginning = failure(host.exportDisk(VDI));
    await asked.promise;
    const closing = host.close();
    await new Promise(setImmediate);
    answer.resolve();
    await closing;
    expect(await beginning).toMatchObject({ xapiCode: 'SESSION_INVALID' });
    expect(remote.tasks.size).toBe(0);
    expect(remote.sessions.size).toBe(0);
  });

  test('a host that has fallen silent does not keep an abort or a close waiting', async () => {
    remote.handlers['/export_raw_vdi'] = ({ socket }) => {
      socket.write(Buffer.concat([Buffer.from(HEAD_200), patterned(1000)]));
    };
    const abort = new AbortController();
    const { chunks } = await host.exportDisk(VDI, { signal: abort.signal });
    const iterator = chunks[Symbol.asyncIterator]();
    await iterator.next();
    const silence = new Promise<never>(() => {});
    for (const method of ['task.cancel', 'task.destroy', 'task.get_record', 'VDI.get_VBDs']) {
      remote.methods[method] = () => silence;
    }
    const reason = new Error('enough');
    abort.abort(reason);
    await expect(iterator.next()).rejects.toBe(reason);
    await host.close();
    remote.tasks.clear();
  });

  test('a slow reader slows the host down', async () => {
    const total = 256 * 2 ** 20;
    vdi.virtual_size = total;
    let written = 0;
    const stuck = Promise.withResolvers<void>();
    remote.handlers['/export_raw_vdi'] = async ({ query, socket }) => {
      socket.write(HEAD_200);
      const chunk = Buffer.alloc(2 ** 20, 7);
      for (; written < total; written += chunk.length) {
        if (socket.write(chunk)) continue;
        // Nobody reads: when no more drains for a second, what is under way is all that fits into the buffers.
        const timer = setTimeout(stuck.resolve, 1000);
        await once(socket, 'drain');
        clearTimeout(timer);
      }
      socket.end();
      remote.endTask(query.get('task_id')!, {});
      stuck.resolve();
    };
    const iterator = (await host.exportDisk(VDI)).chunks[Symbol.asyncIterator]();
    let received = (await iterator.next()).value?.length ?? 0;
    await stuck.promise;
    expect(written).toBeLessThan(64 * 2 ** 20);
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next())
      received += next.value.length;
    expect(received).toBe(total);
  });
});

describe('redirects', () => {
  test('to a host of the pool: followed, and its certificate is judged before the session is shown', async () => {
    await using member = await scriptedHost();
    remote.methods['host.get_all_records'] = () => ({ a: { uuid: 'a', address: '127.0.0.1', hostname: 'a' } });
    remote.handlers['/export_raw_vdi'] = ({ socket, message }) => {
      socket.end(`HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:${member.port}${message.url}\r\n\r\n`);
    };
    member.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      socket.end(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE)]));
      remote.endTask(query.get('task_id')!, {});
    };
    expect(await readAll()).toHaveLength(SIZE);
  });

  test('a transcript shows the exchange, but neither session nor task nor password', async () => {
    const seen: HostExchange[] = [];
    await host.close();
    host = await remote.connect({ onExchange: (exchange) => seen.push(exchange) });
    const [session = ''] = remote.sessions;
    remote.handlers['/export_raw_vdi'] = ({ socket, message }) => {
      remote.handlers['/export_raw_vdi'] = ({ query, socket: second }) => {
        second.end(Buffer.concat([Buffer.from(HEAD_200), patterned(SIZE)]));
        remote.endTask(query.get('task_id')!, {});
      };
      socket.end(`HTTP/1.1 302 Found\r\nLocation: ${remote.url}${message.url}\r\n\r\n`);
    };
    expect(await readAll()).toHaveLength(SIZE);
    expect(seen).toContainEqual(expect.objectContaining({ kind: 'request', status: 302 }));
    expect(seen).toContainEqual(expect.objectContaining({ kind: 'call', method: 'task.create' }));
    const shown = JSON.stringify(seen);
    expect(shown).not.toContain(session.replace('OpaqueRef:', ''));
    expect(shown).not.toContain(remote.password);
  });

  test('to a member with another certificate: refused, and the session is not shown', async () => {
    const { selfSigned } = await import('./support/certificate.ts');
    await using member = await scriptedHost(selfSigned());
    remote.handlers['/export_raw_vdi'] = ({ socket, message }) => {
      socket.end(`HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:${member.port}${message.url}\r\n\r\n`);
    };
    expect(await failure(readAll())).toMatchObject({ code: 'HOST_CERTIFICATE_MISMATCH' });
    expect(member.received).toBe(0);
  });

  test.each([
    ['another host', (url: string) => `https://192.0.2.1${url}`],
    ['another protocol', (url: string) => `http://127.0.0.1${url}`],
    ['another path', () => 'https://127.0.0.1/elsewhere'],
    ['nowhere', () => ''],
  ])('to %s: refused', async (_, location) => {
    remote.handlers['/export_raw_vdi'] = ({ socket, message }) => {
      socket.end(`HTTP/1.1 302 Found\r\nLocation: ${location(message.url ?? '')}\r\n\r\n`);
    };
    expect(await failure(readAll())).toMatchObject({ code: 'HOST_ANSWER_INVALID' });
  });

  test('in circles: given up', async () => {
    remote.handlers['/export_raw_vdi'] = ({ socket, message }) => {
      socket.end(`HTTP/1.1 302 Found\r\nLocation: ${remote.url}${message.url}\r\n\r\n`);
    };
    expect(await failure(readAll())).toMatchObject({ code: 'TRANSFER_FAILED', facts: { status: 302 } });
  });

  test('of an import: nothing of the stream is used before', async () => {
    await using member = await scriptedHost();
    let arrived = Buffer.alloc(0);
    remote.handlers['/import_raw_vdi'] = ({ socket, message }) => {
      socket.end(`HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:${member.port}${message.url}\r\n\r\n`);
    };
    member.handlers['/import_raw_vdi'] = async ({ query, socket, message }) => {
      socket.write(HEAD_200);
      arrived = await drain(message).then(Buffer.from);
      remote.endTask(query.get('task_id')!, {});
    };
    const content = patterned(SIZE);
    await host.importDisk(VDI, stream(content));
    expect(content).toSatisfy(equals(arrived));
  });
});

describe('importDisk', () => {
  test('sends the exact length, not chunked, and waits for the verdict', async () => {
    const content = patterned(SIZE);
    let headers: NodeJS.Dict<string | string[]> = {};
    let arrived = Buffer.alloc(0);
    remote.handlers['/import_raw_vdi'] = async ({ query, socket, message }) => {
      headers = message.headers;
      socket.write(HEAD_200);
      arrived = await drain(message).then(Buffer.from);
      remote.endTask(query.get('task_id')!, {});
    };
    const sent: number[] = [];
    await host.importDisk(VDI, stream(content), { onSent: (bytes) => sent.push(bytes) });
    expect(content).toSatisfy(equals(arrived));
    expect(headers['content-length']).toBe(String(SIZE));
    expect(headers['transfer-encoding']).toBeUndefined();
    expect(sent.at(-1)).toBe(SIZE);
    expect(sent).toEqual([...sent].sort((a, b) => a - b));
    await expectSlotFree();
  });

  test('straight from an export, with one slot for transfers: neither waits for the other', async () => {
    const content = patterned(SIZE);
    const taken: Buffer[] = [];
    remote.handlers['/export_raw_vdi'] = ({ query, socket }) => {
      socket.end(Buffer.concat([Buffer.from(HEAD_200), content]));
      remote.endTask(query.get('task_id')!, {});
    };
    remote.handlers['/import_raw_vdi'] = ({ query, socket, message }) => {
      socket.write(HEAD_200);
      message.on('data', (chunk: Buffer) => taken.push(chunk));
      message.on('end', () => remote.endTask(query.get('task_id')!, {}));
    };
    const { chunks } = await host.exportDisk(VDI);
    await host.importDisk(VDI, { length: SIZE, chunks });
    expect(Buffer.concat(taken)).toSatisfy(equals(Buffer.from(content)));
  });

  test('the host resets the connection once it has all: the task decides', async () => {
    remote.handlers['/import_raw_vdi'] = async ({ query, socket, message, reset }) => {
      socket.write(HEAD_200);
      await drain(message);
      reset();
      remote.endTask(query.get('task_id')!, {});
    };
    await host.importDisk(VDI, stream(patterned(SIZE)));
  });

  test('the host fails midway: its code, not EPIPE', async () => {
    vdi.virtual_size = 64 * 2 ** 20;
    remote.handlers['/import_raw_vdi'] = async ({ query, socket, message }) => {
      socket.write(HEAD_200);
      await once(message, 'data');
      remote.endTask(query.get('task_id')!, {
        status: 'failure',
        error_info: ['VDI_IO_ERROR', 'No space left on device'],
      });
      socket.destroy();
    };
    const error = await failure(host.importDisk(VDI, stream(patterned(16 * 2 ** 20))));
    expect(error).toMatchObject({ code: 'TRANSFER_FAILED', xapiCode: 'VDI_IO_ERROR' });
    await expectSlotFree();
  });

  test('the connection breaks midway and the host knows nothing: TRANSFER_CUT', async () => {
    vdi.virtual_size = 64 * 2 ** 20;
    remote.handlers['/import_raw_vdi'] = async ({ socket, message }) => {
      socket.write(HEAD_200);
      await once(message, 'data');
      socket.destroy();
    };
    const error = await failure(host.importDisk(VDI, stream(patterned(16 * 2 ** 20))));
    expect(error).toMatchObject({ code: 'TRANSFER_CUT', retryable: true });
    await expectSlotFree();
  });

  test('the host claims success, but took only a part: TRANSFER_CUT', async () => {
    vdi.virtual_size = 64 * 2 ** 20;
    remote.handlers['/import_raw_vdi'] = async ({ query, socket, message }) => {
      socket.write(HEAD_200);
      await once(message, 'data');
      remote.endTask(query.get('task_id')!, {});
      socket.destroy();
    };
    expect(await failure(host.importDisk(VDI, stream(patterned(16 * 2 ** 20))))).toMatchObject({
      code: 'TRANSFER_CUT',
    });
  });

  test('a stream that fails, or has another length than it said, is the caller’s own error', async () => {
    remote.handlers['/import_raw_vdi'] = async ({ socket, message }) => {
      socket.write(HEAD_200);
      await drain(message).catch(() => {});
    };
    const broken = new Error('disk on fire');
    const chunks = (async function* () {
      yield patterned(10);
      throw broken;
    })();
    await expect(host.importDisk(VDI, { length: 20, chunks })).rejects.toBe(broken);
    const short = { ...stream(patterned(10)), length: 20 };
    expect(await failure(host.importDisk(VDI, short))).toMatchObject({ code: 'STREAM_LENGTH' });
    await expectSlotFree();
  });

  test('an abort midway rejects with its reason and leaves no task', async () => {
    remote.handlers['/import_raw_vdi'] = ({ socket, message }) => {
      socket.write(HEAD_200);
      message.resume().on('error', () => {});
    };
    const abort = new AbortController();
    const reason = new Error('stop');
    const options = { signal: abort.signal, onSent: () => abort.abort(reason) };
    await expect(host.importDisk(VDI, stream(patterned(SIZE)), options)).rejects.toBe(reason);
    expect(remote.tasks.size).toBe(0);
    await expectSlotFree();
  });

  test('an abort, and closing the connection, end an import whose stream is stuck', { timeout: 10_000 }, async () => {
    remote.handlers['/import_raw_vdi'] = ({ socket }) => {
      socket.write(HEAD_200);
    };
    for (const end of ['abort', 'close']) {
      const abort = new AbortController();
      const pulled = Promise.withResolvers<void>();
      const stuck = async function* (): AsyncGenerator<Uint8Array, void> {
        yield patterned(1000);
        pulled.resolve();
        await new Promise<never>(() => {});
      };
      const importing = host.importDisk(VDI, { length: SIZE, chunks: stuck() }, { signal: abort.signal });
      const rejected = expect(importing).rejects.toMatchObject({ message: expect.stringMatching(/enough|closed/) });
      await pulled.promise;
      if (end === 'abort') abort.abort(new Error('enough'));
      else await host.close();
      await rejected;
    }
  });

  test('a raw stream that is longer than the disk is refused before anything is asked', async () => {
    await expect(host.importDisk(VDI, stream(patterned(SIZE + 1)))).rejects.toThrow(RangeError);
  });
});

describe('metadata', () => {
  test('is exported whole, without snapshots', async () => {
    let query = new URLSearchParams();
    remote.handlers['/export_metadata'] = (request) => {
      query = request.query;
      request.socket.end('HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello');
      remote.endTask(query.get('task_id')!, {});
    };
    expect(new TextDecoder().decode(await host.exportMetadata('1b6b1a4c-0000-4000-8000-00000000000b'))).toBe('hello');
    expect(query.get('export_snapshots')).toBe('false');
  });

  test('fewer bytes than promised is TRANSFER_CUT', async () => {
    remote.handlers['/export_metadata'] = ({ query, socket }) => {
      socket.end('HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello');
      remote.endTask(query.get('task_id')!, {});
    };
    expect(await failure(host.exportMetadata('OpaqueRef:vm'))).toMatchObject({ code: 'TRANSFER_CUT' });
  });

  test('import gives the references of the VMs made, none for a dry run', async () => {
    let query = new URLSearchParams();
    let result = '<value><array><data><value>OpaqueRef:1</value></data></array></value>';
    remote.handlers['/import_metadata'] = async (request) => {
      query = request.query;
      request.socket.write(HEAD_200);
      await drain(request.message);
      remote.endTask(query.get('task_id')!, { result });
    };
    expect(await host.importMetadata(patterned(100), { restore: true })).toEqual(['OpaqueRef:1']);
    expect([query.get('restore'), query.get('force'), query.get('dry_run')]).toEqual(['true', null, null]);
    result = '';
    expect(await host.importMetadata(patterned(100), { dryRun: true })).toEqual([]);
    expect(query.get('dry_run')).toBe('true');
  });

  test('a host that does not read to the end has imported all the same, if the task says so', async () => {
    remote.handlers['/import_metadata'] = async ({ query, socket, message }) => {
      socket.write(HEAD_200);
      await once(message, 'data');
      remote.endTask(query.get('task_id')!, { result: '<value>OpaqueRef:1</value>' });
      socket.destroy();
    };
    expect(await host.importMetadata(patterned(8 * 2 ** 20))).toEqual(['OpaqueRef:1']);
  });
});

test('a transfer that cannot have a task does not start', async () => {
  remote.methods['task.create'] = () => {
    throw new Refused('TOO_MANY_PENDING_TASKS');
  };
  expect(await failure(host.exportDisk(VDI))).toMatchObject({ xapiCode: 'TOO_MANY_PENDING_TASKS', retryable: true });
});
