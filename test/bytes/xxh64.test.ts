import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { loadXxh64, xxh64Hex } from '../../src/bytes/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';

const MIB = 1024 * 1024;

test('nothing hashes to what the reference implementation says', async () => {
  const { hash, create } = await loadXxh64();
  expect(xxh64Hex(hash(new Uint8Array(0)))).toBe('EF46DB3751D8E999');
  expect(xxh64Hex(create().digest())).toBe('EF46DB3751D8E999');
});

test('small numbers keep their leading zeros', () => {
  expect(xxh64Hex(0xabcn)).toBe('0000000000000ABC');
});

test.runIf(hasTool('xxhsum')).each([1, 3, 31, 32, 33, 4096, MIB - 1, MIB, MIB + 1, 2 * MIB + 77])(
  'xxhsum agrees about %i bytes',
  async (length) => {
    const { hash, create } = await loadXxh64();
    const bytes = patterned(length);
    const [theirs] = execFileSync('xxhsum', ['-H64', '-'], { input: bytes, encoding: 'utf8' }).split(' ');
    expect(xxh64Hex(hash(bytes)).toLowerCase()).toBe(theirs);
    const hasher = create();
    hasher.update(bytes);
    expect(xxh64Hex(hasher.digest()).toLowerCase()).toBe(theirs);
  },
);

test('pieces give the same as the whole, two hashers at once', async () => {
  const { hash, create } = await loadXxh64();
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), fc.uint8Array(), (pieces, other) => {
      const one = create();
      const two = create();
      for (const piece of pieces) {
        one.update(piece);
        two.update(other);
        expect(typeof one.digest()).toBe('bigint'); // asking in between changes nothing
      }
      expect(one.digest()).toBe(hash(Uint8Array.from(pieces.flatMap((piece) => [...piece]))));
      expect(two.digest()).toBe(hash(Uint8Array.from(pieces.flatMap(() => [...other]))));
    }),
  );
});
