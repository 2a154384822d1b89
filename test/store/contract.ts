import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import type { Store } from '../../src/store/index.ts';
import { patterned } from '../support/patterned.ts';

/** What a store under test needs around it. */
export interface StoreUnderTest {
  readonly store: Store;
  /** Nothing but published objects is left: no temporary file. */
  expectNoLeftovers(): Promise<void>;
  dispose(): Promise<void>;
}

const INVALID_NAMES = [
  '',
  '/',
  '/a',
  'a/',
  'a//b',
  '.',
  '..',
  'a/..',
  '../a',
  'a/../b',
  'a/./b',
  '.hidden',
  'a/.tmp/b',
  'a\\b',
  'A',
  'a/B',
  'ä',
  'a b',
  'a:b',
  'a\0b',
  'a\n',
  'a.',
  'a*',
  'c:/a',
  'con',
  'a/nul',
  'nul.txt',
  'com1.vhd',
  'lpt9',
  'aux/b',
  'a'.repeat(201),
  Array(100).fill('abcdef').join('/'),
];

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const bytesOf = (text: string) => new TextEncoder().encode(text);

async function* chunksOf(...chunks: Uint8Array[]) {
  yield* chunks;
}

async function* failingAt(index: number, error: Error) {
  for (let i = 0; i < index; i++) yield new Uint8Array(300_000).fill(i);
  throw error;
}

/** What every store must do; run over each of them. */
export function storeContract(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps the contract of a store`, () => {
    let under: StoreUnderTest;
    let store: Store;
    beforeEach(async () => {
      under = await make();
      store = under.store;
    });
    afterEach(() => under.dispose());

    const contentOf = async (object: string) => {
      await using source = await store.open(object);
      return await readBytes(source, 0, source.size);
    };

    test('an empty store lists nothing and has no objects', async () => {
      expect(await store.list('')).toEqual({ names: [], complete: true });
      expect(await store.list('a/b/')).toEqual({ names: [], complete: true });
      expect(await store.size('a/b')).toBeUndefined();
      await expect(store.open('a/b')).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      await store.remove('a/b');
      expect(await store.removeAbandoned()).toEqual([]);
    });

    test('gives back what was written, whatever it came from, with length and hash', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 700 })), fc.nat(), async (chunks, salt) => {
          const whole = Buffer.concat(chunks);
          const expected = { length: whole.byteLength, sha256: sha256(whole) };
          const unique = `p${salt}-${Math.random().toString(36).slice(2)}`;
          expect(await store.write(`${unique}/a`, whole)).toEqual(expected);
          expect(await store.write(`${unique}/b`, chunksOf(...chunks))).toEqual(expected);
          expect(await store.write(`${unique}/c`, { length: whole.byteLength, chunks: chunksOf(...chunks) })).toEqual(
            expected,
          );
          for (const part of ['a', 'b', 'c'])
            expect(Buffer.compare(await contentOf(`${unique}/${part}`), whole)).toBe(0);
        }),
        { numRuns: 25 },
      );
    });

    test('large and small chunks mixed keep their order', async () => {
      const chunks = [1, 300_000, 5, 262_144, 262_143, 2, 1_000_001].map((length, i) =>
        new Uint8Array(length).map((_, at) => (at * 7 + i) & 0xff),
      );
      await store.write('mixed', chunksOf(...chunks));
      expect(Buffer.compare(await contentOf('mixed'), Buffer.concat(chunks))).toBe(0);
    });

    test.each([
      ['Uint8Array', new Uint8Array(1000)],
      ['Buffer', Buffer.alloc(1000)], // whose slice() is no copy
    ])('a source may use its %s again', async (_, buffer) => {
      async function* reusing() {
        for (let i = 0; i < 5; i++) yield buffer.fill(i);
      }
      await store.write('reused', reusing());
      const expected = Buffer.concat([0, 1, 2, 3, 4].map((i) => new Uint8Array(1000).fill(i)));
      expect(Buffer.compare(await contentOf('reused'), expected)).toBe(0);
    });

    test('an empty object is an object', async () => {
      expect(await store.write('empty', chunksOf())).toEqual({ length: 0, sha256: sha256(new Uint8Array()) });
      expect(await store.size('empty')).toBe(0);
      expect((await contentOf('empty')).byteLength).toBe(0);
      expect((await store.list('')).names).toEqual(['empty']);
    });

    test('reads any range, several at once, and nothing past the end', async () => {
      const whole = new Uint8Array(10_000).map((_, at) => at % 251);
      await store.write('ranges', whole);
      await using source = await store.open('ranges');
      expect(source.size).toBe(10_000);
      const ranges = [
        [0, 10_000],
        [9_999, 1],
        [10_000, 0],
        [123, 4_567],
      ] as const;
      const read = await Promise.all(ranges.map(([offset, length]) => readBytes(source, offset, length)));
      for (const [i, [offset, length]] of ranges.entries()) {
        expect(Buffer.compare(read[i]!, whole.subarray(offset, offset + length))).toBe(0);
      }
      await expect(readBytes(source, 9_999, 2)).rejects.toThrow(RangeError);
      await source.close();
    });

    test('a small object is read whole, where the store can do that; a longer one is left to open', async () => {
      await store.write('a/small', patterned(5000));
      await store.write('a/empty', new Uint8Array());
      if (store.readSmall === undefined) return;
      expect(Buffer.compare((await store.readSmall('a/small', 5000))!, patterned(5000))).toBe(0);
      expect(await store.readSmall('a/empty', 0)).toEqual(new Uint8Array());
      expect(await store.readSmall('a/small', 4999)).toBeUndefined();
      await expect(store.readSmall('a/none', 10)).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      await expect(store.readSmall('b/none', 10)).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      await expect(store.readSmall('../a', 10)).rejects.toMatchObject({ code: 'STORE_NAME_INVALID' });
      const reason = new Error('enough');
      await expect(store.readSmall('a/small', 10, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    });

    test('small objects are read together, where the store can do that, in the order of their names', async () => {
      const sizes = new Map(Array.from({ length: 30 }, (_, i) => [`many/${i % 3}/o${i}`, i * 10]));
      for (const [name, size] of sizes) await store.write(name, patterned(size, size + 1));
      if (store.readMany === undefined) return;
      const names = ['none/x', ...[...sizes.keys()].sort().reverse(), 'many/0/none', 'many'];
      const found: (Uint8Array | undefined)[] = [];
      for await (const bytes of store.readMany(names, 250)) found.push(bytes);
      expect(found).toHaveLength(names.length);
      for (const [i, name] of names.entries()) {
        const size = sizes.get(name);
        if (size === undefined || size > 250) expect(found[i], name).toBeUndefined();
        else if (found[i] !== undefined) expect(found[i], name).toEqual(patterned(size, size + 1));
      }
      for await (const _ of store.readMany([], 10)) expect.unreachable();
      const invalid = store.readMany(['../a'], 10)[Symbol.asyncIterator]();
      await expect(invalid.next()).rejects.toMatchObject({ code: 'STORE_NAME_INVALID' });
      const reason = new Error('enough');
      const aborted = store.readMany(names, 10, { signal: AbortSignal.abort(reason) })[Symbol.asyncIterator]();
      await expect(aborted.next()).rejects.toBe(reason);
    });

    test('never writes over an object', async () => {
      await store.write('once', bytesOf('first'));
      await expect(store.write('once', bytesOf('second'))).rejects.toMatchObject({ code: 'STORE_EXISTS' });
      const staged = await store.stage();
      await writeFile(staged.path, 'third');
      await expect(staged.publish('once')).rejects.toMatchObject({ code: 'STORE_EXISTS' });
      await staged.discard();
      expect(Buffer.from(await contentOf('once')).toString()).toBe('first');
      await under.expectNoLeftovers();
    });

    test('takes the place of an object where that is said; who has the old one open keeps it', async () => {
      const { store } = under;
      const [old, fresh] = [Buffer.from('the old'), Buffer.from('something new')];
      await store.write('a/b', old);
      await using open = await store.open('a/b');
      const written = await store.write('a/b', fresh, { replace: true });
      expect(written.length).toBe(fresh.byteLength);
      expect(Buffer.from(await readBytes(open, 0, open.size))).toEqual(old);
      await using now = await store.open('a/b');
      expect(Buffer.from(await readBytes(now, 0, now.size))).toEqual(fresh);
      async function* broken(): AsyncGenerator<Uint8Array, void> {
        yield Buffer.from('half');
        throw new Error('source is gone');
      }
      await expect(store.write('a/b', broken(), { replace: true })).rejects.toThrow('source is gone');
      const staged = await store.stage();
      await writeFile(staged.path, old);
      await staged.publish('a/b', { replace: true });
      expect(await store.size('a/b')).toBe(old.byteLength);
      await store.write('c', fresh, { replace: true }); // nothing to replace
      expect((await store.list('')).names).toEqual(['a/b', 'c']);
    });

    test('of several writers of one name exactly one wins', async () => {
      const gate = Promise.withResolvers<void>();
      let waiting = 0;
      async function* racing(text: string) {
        yield bytesOf(text);
        if (++waiting === 8) gate.resolve(); // all have passed the first look at the name
        await gate.promise;
      }
      const texts = Array.from({ length: 8 }, (_, i) => `writer ${i}`);
      const outcomes = await Promise.allSettled(texts.map((text) => store.write('race/object', racing(text))));
      const winners = texts.filter((_, i) => outcomes[i]!.status === 'fulfilled');
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'STORE_EXISTS' });
      }
      expect(Buffer.from(await contentOf('race/object')).toString()).toBe(winners[0]);
      await under.expectNoLeftovers();
    });

    test.each([0, 1, 2, 5])(
      'a stream that fails at chunk %i leaves nothing, and its own error is thrown',
      async (at) => {
        const failure = new Error('the source broke');
        await expect(store.write('broken/object', failingAt(at, failure))).rejects.toBe(failure);
        expect(await store.size('broken/object')).toBeUndefined();
        expect((await store.list('')).names).toEqual([]);
        await under.expectNoLeftovers();
        await store.write('broken/object', bytesOf('now'));
      },
    );

    test.each([
      ['short', 9],
      ['long', 7],
    ])('a sized stream that is too %s is not published', async (_, length) => {
      const from = { length, chunks: chunksOf(bytesOf('four'), bytesOf('more')) };
      await expect(store.write('sized', from)).rejects.toMatchObject({ code: 'STREAM_LENGTH' });
      expect(await store.size('sized')).toBeUndefined();
      await under.expectNoLeftovers();
    });

    test('an abort ends a write whose source is stuck, and leaves nothing', async () => {
      const abort = new AbortController();
      const reason = new Error('enough');
      let ended = false;
      async function* stuck() {
        try {
          yield bytesOf('start');
          abort.abort(reason);
          await new Promise(() => {});
        } finally {
          ended = true;
        }
      }
      await expect(store.write('stuck', stuck(), { signal: abort.signal })).rejects.toBe(reason);
      expect(ended).toBe(false); // it never can: the write did not wait for it
      expect(await store.size('stuck')).toBeUndefined();
      await under.expectNoLeftovers();
    });

    test('an abort between two chunks ends the source', async () => {
      const abort = new AbortController();
      const reason = new Error('enough');
      let ended = false;
      async function* endless() {
        try {
          for (let i = 0; ; i++) {
            if (i === 3) abort.abort(reason);
            yield new Uint8Array(300_000);
          }
        } finally {
          ended = true;
        }
      }
      await expect(store.write('endless', endless(), { signal: abort.signal })).rejects.toBe(reason);
      await expect.poll(() => ended).toBe(true);
      await under.expectNoLeftovers();
    });

    test('every call refuses at once when it is aborted already', async () => {
      await store.write('here', bytesOf('x'));
      const signal = AbortSignal.abort(new Error('before'));
      const calls = [
        store.write('other', bytesOf('x'), { signal }),
        store.open('here', { signal }),
        store.size('here', { signal }),
        store.list('', { signal }),
        store.remove('here', { signal }),
        store.stage({ signal }),
      ];
      for (const outcome of await Promise.allSettled(calls)) {
        expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'before' } });
      }
      expect((await store.list('')).names).toEqual(['here']);
    });

    test('lists by prefix, sorted, at any depth', async () => {
      const names = ['a/b/c.json', 'a/b-c', 'a/b/d/e', 'ab', 'b/a', 'a/b/c.vhd'];
      for (const object of names) await store.write(object, bytesOf(object));
      expect(await store.list('')).toEqual({ names: [...names].sort(), complete: true });
      expect((await store.list('a/b/')).names).toEqual(['a/b/c.json', 'a/b/c.vhd', 'a/b/d/e']);
      expect((await store.list('a/')).names).toEqual(['a/b-c', 'a/b/c.json', 'a/b/c.vhd', 'a/b/d/e']);
      expect((await store.list('c/')).names).toEqual([]);
      for (const prefix of ['a', 'a/b', '/', '../', 'a//', 'A/', './']) {
        await expect(store.list(prefix)).rejects.toMatchObject({ code: 'STORE_NAME_INVALID' });
      }
    });

    test('removes an object, and does nothing where there is none', async () => {
      await store.write('a/b', bytesOf('x'));
      await using source = await store.open('a/b');
      await store.remove('a/b');
      await store.remove('a/b');
      expect(await store.size('a/b')).toBeUndefined();
      expect((await store.list('')).names).toEqual([]);
      expect(Buffer.from(await readBytes(source, 0, 1)).toString()).toBe('x'); // who has it open reads on
      await store.write('a/b', bytesOf('again'));
      expect(await store.size('a/b')).toBe(5);
    });

    test.each(INVALID_NAMES)('refuses the name %j', async (invalid) => {
      const refused = { code: 'STORE_NAME_INVALID' };
      await expect(store.write(invalid, bytesOf('x'))).rejects.toMatchObject(refused);
      await expect(store.open(invalid)).rejects.toMatchObject(refused);
      await expect(store.size(invalid)).rejects.toMatchObject(refused);
      await expect(store.remove(invalid)).rejects.toMatchObject(refused);
      const staged = await store.stage();
      await writeFile(staged.path, 'x');
      await expect(staged.publish(invalid)).rejects.toMatchObject(refused);
      await staged.discard();
      expect((await store.list('')).names).toEqual([]);
    });

    test('publishes a staged file with its length and hash', async () => {
      const whole = new Uint8Array(3_000_001).map((_, at) => (at * 31) & 0xff);
      const staged = await store.stage();
      await writeFile(staged.path, whole);
      expect((await store.list('')).names).toEqual([]);
      expect(await staged.publish('staged/object')).toEqual({ length: whole.byteLength, sha256: sha256(whole) });
      await staged.discard();
      expect(Buffer.compare(await contentOf('staged/object'), whole)).toBe(0);
      await under.expectNoLeftovers();
    });

    test('a staged file with a key is found again until it is published or discarded', async () => {
      const key = 'vm.disk.vhd';
      const first = await store.stage({ key });
      await writeFile(first.path, 'half');
      const again = await store.stage({ key });
      expect(await readFile(again.path, 'utf8')).toBe('half');
      const other = await store.stage({ key: 'vm.other.vhd' });
      await expect(readFile(other.path)).rejects.toMatchObject({ code: 'ENOENT' });
      await other.discard();
      await writeFile(again.path, 'whole');
      await again.publish('kept/object');
      expect(Buffer.from(await contentOf('kept/object')).toString()).toBe('whole');
      const published = await store.stage({ key });
      await expect(readFile(published.path)).rejects.toMatchObject({ code: 'ENOENT' });
      await writeFile(published.path, 'more');
      await published.discard();
      const discarded = await store.stage({ key });
      await expect(readFile(discarded.path)).rejects.toMatchObject({ code: 'ENOENT' });
      await discarded.discard();
      expect((await store.list('')).names).toEqual(['kept/object']);
      await under.expectNoLeftovers();
    });

    test.each(['', '..', 'a/b', '.a', 'A'])('refuses the key %j of a staged file', async (key) => {
      await expect(store.stage({ key })).rejects.toMatchObject({ code: 'STORE_NAME_INVALID' });
    });

    test('a staged file that is discarded, or was never made, leaves nothing', async () => {
      const made = await store.stage();
      await writeFile(made.path, 'x');
      await made.discard();
      await made.discard();
      const never = await store.stage();
      await expect(never.publish('never')).rejects.toMatchObject({ code: 'STORE_IO' });
      await never.discard();
      expect((await store.list('')).names).toEqual([]);
      await under.expectNoLeftovers();
    });
  });
}
