import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Extent, joinExtents } from '../../src/disk/index.ts';
import { connectNbd, type NbdContextExtent } from '../../src/nbd-protocol/index.ts';
import { extentsOfWindows, STATUS_WINDOW } from '../../src/nbd-protocol/status-windows.ts';
import { toArray } from '../support/to-array.ts';
import { chunk, type FakePeer, fakeServer, u32 } from './fake-server.ts';

const ZERO = 2;

/** The map of a disk: runs of data and zeros, the first one data, cut out of it as a server would. */
function cutOut(runs: readonly number[], offset: number, length: number): NbdContextExtent[] {
  const found: NbdContextExtent[] = [];
  let at = 0;
  for (const [index, run] of runs.entries()) {
    const [start, end] = [Math.max(at, offset), Math.min(at + run, offset + length)];
    if (start < end) found.push({ offset: start, length: end - start, flags: index % 2 === 0 ? 0 : ZERO });
    at += run;
  }
  return found;
}

function expectedOf(runs: readonly number[], offset: number, end: number): Extent[] {
  return cutOut(runs, offset, end - offset).map(({ flags, ...range }) => ({
    ...range,
    kind: flags === ZERO ? 'zero' : 'data',
  }));
}

test('whatever a server tells at once, and whenever: the extents are those of the disk', async () => {
  const runs = fc.array(fc.integer({ min: 1, max: 5_000_000_000 }), { minLength: 1, maxLength: 12 });
  const property = fc.asyncProperty(
    runs,
    fc.integer({ min: 1, max: 3 }),
    fc.double({ min: 0, max: 0.5, noNaN: true }),
    fc.infiniteStream(fc.nat(3)),
    async (disk, most, from, delays) => {
      const size = disk.reduce((sum, run) => sum + run, 0);
      const offset = Math.floor(size * from);
      const ask = async (at: number, length: number) => {
        expect(length).toBeLessThanOrEqual(STATUS_WINDOW);
        for (let turns = delays.next().value; turns > 0; turns--) await Promise.resolve();
        return cutOut(disk, at, length).slice(0, most);
      };
      const extents = await toArray(joinExtents(extentsOfWindows({ offset, end: size }, ask, undefined)));
      expect(extents).toEqual(expectedOf(disk, offset, size));
    },
  );
  await fc.assert(property, { numRuns: 300 });
});

test('several windows are asked for at a time, one where there is much to tell', async () => {
  const size = STATUS_WINDOW * 20;
  let open = 0;
  let most = 0;
  const ask = (count: number) => async (offset: number, length: number) => {
    most = Math.max(most, ++open);
    await new Promise(setImmediate);
    open--;
    const step = Math.floor(length / count);
    return Array.from({ length: count }, (_, i) => ({ offset: offset + i * step, length: step, flags: i % 2 }));
  };
  await toArray(extentsOfWindows({ offset: 0, end: size }, ask(1), undefined));
  expect(most).toBe(8);
  const extents = extentsOfWindows({ offset: 0, end: size }, ask(4096), undefined);
  most = 0;
  for (let i = 0; i < 4096 * 4; i++) await extents.next();
  await extents.return();
  expect(most).toBe(1);
});

test('a server that tells nothing has data', async () => {
  const extents = extentsOfWindows({ offset: 5, end: STATUS_WINDOW * 3 }, async () => [], undefined);
  expect(await toArray(joinExtents(extents))).toEqual([{ offset: 5, length: STATUS_WINDOW * 3 - 5, kind: 'data' }]);
});

test('who leaves early cancels what was asked, and waits for it', async () => {
  const signals: AbortSignal[] = [];
  let ended = 0;
  const ask = async (offset: number, length: number, signal: AbortSignal) => {
    signals.push(signal);
    if (offset < STATUS_WINDOW * 3) return [{ offset, length, flags: 0 }];
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    ended++;
    throw signal.reason;
  };
  for await (const extent of extentsOfWindows({ offset: 0, end: STATUS_WINDOW * 20 }, ask, undefined)) {
    if (extent.offset === STATUS_WINDOW * 2) break;
  }
  expect(signals.map(({ aborted }) => aborted)).toEqual(Array(10).fill(true));
  expect(ended).toBe(7);
});

test('a failure of a later window comes when it is its turn', async () => {
  const failure = new Error('gone');
  const ask = async (offset: number, length: number) => {
    if (offset > 0) throw failure;
    return [{ offset, length, flags: ZERO }];
  };
  const extents = extentsOfWindows({ offset: 0, end: STATUS_WINDOW * 2 }, ask, undefined);
  expect(await extents.next()).toEqual({ done: false, value: { offset: 0, length: STATUS_WINDOW, kind: 'zero' } });
  await expect(extents.next()).rejects.toBe(failure);
});

test('an abort ends the asking with its reason', async () => {
  const stop = new AbortController();
  const reason = new Error('enough');
  const ask = async (offset: number, length: number) => [{ offset, length, flags: 0 }];
  const extents = extentsOfWindows({ offset: 0, end: STATUS_WINDOW * 20 }, ask, stop.signal);
  await extents.next();
  stop.abort(reason);
  await expect(extents.next()).rejects.toBe(reason);
});

test('one connection carries all that are asked for ahead, and a read beside them', async () => {
  const first = BigInt(STATUS_WINDOW); // answered at once: more are then asked for at a time
  const held: Awaited<ReturnType<FakePeer['request']>>[] = [];
  await using server = await fakeServer(async (peer) => {
    await peer.greet();
    await peer.negotiate({ structured: true, size: BigInt(STATUS_WINDOW * 9) });
    const answer = ({ type, cookie, length }: (typeof held)[number]) =>
      type === 7
        ? peer.send(chunk(1, 5, cookie, u32(7), u32(length), u32(2)))
        : peer.send(chunk(1, 1, cookie, Buffer.alloc(8), Buffer.alloc(length)));
    while (held.length < 9) {
      const request = await peer.request();
      if (request.type === 7 && request.offset < first) answer(request);
      else held.push(request);
    }
    for (const request of held) answer(request);
    await peer.gone;
  });
  const disk = await connectNbd(server.uri, { connections: 1, timeouts: { disconnectMs: 10 } });
  const extents = toArray(disk.extents());
  await disk.readInto(new Uint8Array(4096), 0);
  expect(await extents).toEqual([{ offset: 0, length: disk.size, kind: 'zero' }]);
  expect(held.filter(({ type }) => type === 7)).toHaveLength(8);
  await disk.close();
});
