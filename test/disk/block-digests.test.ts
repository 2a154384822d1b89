import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockDigests, type Disk, digestDisk, memoryDisk } from '../../src/disk/index.ts';
import { patterned } from '../support/patterned.ts';
import { toArray } from '../support/to-array.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;

const sha256 = (...bytes: Uint8Array[]) => {
  const hash = createHash('sha256');
  for (const piece of bytes) hash.update(piece);
  return hash.digest();
};

/** As it is said in words: the SHA-256 over the SHA-256 of each 2 MiB. */
function rootOf(bytes: Uint8Array): string {
  const digests: Uint8Array[] = [];
  for (let at = 0; at < bytes.byteLength; at += BLOCK) digests.push(sha256(bytes.subarray(at, at + BLOCK)));
  return sha256(...digests).toString('hex');
}

test.each([0, 512, BLOCK, BLOCK + 512, 3 * BLOCK - 512, 5 * BLOCK])('of a disk of %i bytes', async (size) => {
  expect(await digestDisk(memoryDisk(patterned(size)))).toBe(rootOf(patterned(size)));
  expect(await digestDisk(memoryDisk(new Uint8Array(size)))).toBe(rootOf(new Uint8Array(size)));
});

test('does not depend on how the extents cut the disk', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(20 * 1024), { minLength: 1, maxLength: 8 }), async (cuts) => {
      const size = 5 * BLOCK - 512;
      const bytes = patterned(size);
      const edges = [0, ...cuts.map((cut) => (cut * 512) % size).sort((a, b) => a - b), size];
      const runs = edges.slice(1).flatMap((end, i) => {
        const offset = edges[i]!;
        if (end === offset) return [];
        const kind: 'data' | 'zero' = i % 2 === 0 ? 'data' : 'zero';
        if (kind === 'zero') bytes.fill(0, offset, end);
        return [{ offset, length: end - offset, kind }];
      });
      const disk: Disk = {
        ...memoryDisk(bytes),
        async *extents() {
          yield* runs;
        },
      };
      expect(await digestDisk(disk)).toBe(rootOf(bytes));
    }),
    { numRuns: 30 },
  );
});

test('hashes what was given, though its memory is used again at once', async () => {
  const digests = new BlockDigests(200 * BLOCK);
  const memory = new Uint8Array(BLOCK);
  const adding: Promise<void>[] = [];
  for (let i = 0; i < 200; i += 2) {
    memory.fill(i);
    adding.push(digests.add(i * BLOCK, memory));
  }
  memory.fill(99);
  await Promise.all(adding);
  const listed = await toArray(digests.list());
  expect(listed).toHaveLength(100);
  for (const { offset, sha256: found } of listed) {
    expect(found).toBe(sha256(new Uint8Array(BLOCK).fill(offset / BLOCK)).toString('hex'));
  }
});

test('a block out of place is a mistake of the caller', async () => {
  const digests = new BlockDigests(2 * BLOCK + 512);
  const whole = new Uint8Array(BLOCK);
  await expect(digests.add(512, whole)).rejects.toThrow(RangeError);
  await expect(digests.add(2 * BLOCK, whole)).rejects.toThrow(RangeError);
  await digests.add(BLOCK, whole);
  await expect(digests.add(0, whole)).rejects.toThrow(RangeError);
  await expect(digests.add(BLOCK, whole)).rejects.toThrow(RangeError);
  await digests.add(2 * BLOCK, new Uint8Array(512));
});

test('an abort stops the digest of a disk', async () => {
  const stop = new AbortController();
  stop.abort('enough');
  await expect(digestDisk(memoryDisk(patterned(BLOCK)), { signal: stop.signal })).rejects.toBe('enough');
});
