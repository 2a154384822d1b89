import { createHash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { type Disk, hashDisk, memoryDisk, rawDisk } from '../../src/disk/index.ts';
import { type Cell, cellDisk } from '../support/disks.ts';
import { patterned } from '../support/patterned.ts';
import { failEachRead, InjectedFailure } from '../support/sources.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

const cells = fc.array(
  fc.record({ kind: fc.constantFrom<Cell['kind']>('data', 'zero', 'absent'), value: fc.integer({ min: 1, max: 255 }) }),
  { maxLength: 40 },
);

test('is the SHA-256 of the raw image, whatever is data, zero or absent', async () => {
  await fc.assert(
    fc.asyncProperty(cells, async (list) => {
      const image = Uint8Array.from(list, ({ kind, value }) => (kind === 'data' ? value : 0));
      expect(await hashDisk(cellDisk(list, { absentReadsZero: true }))).toBe(sha256(image));
    }),
  );
});

test('of several blocks with zeros between and at the end', async () => {
  const image = patterned(9 * 2 ** 20 + 5);
  image.fill(0, 2 ** 20, 5 * 2 ** 20).fill(0, 8 * 2 ** 20);
  expect(await hashDisk(memoryDisk(image))).toBe(sha256(image));
  expect(await hashDisk(rawDisk(memorySource(image)))).toBe(sha256(image));
});

test('of no bytes', async () => {
  expect(await hashDisk(memoryDisk(new Uint8Array(0)))).toBe(sha256(new Uint8Array(0)));
});

function zeros(size: number): Disk {
  return {
    ...memoryDisk(new Uint8Array(0)),
    size,
    async *extents() {
      yield { offset: 0, length: size, kind: 'zero' };
    },
    readInto: () => expect.fail('known zeros were read'),
  };
}

test('known zeros are not read', async () => {
  const size = 40 * 2 ** 20 + 1;
  expect(await hashDisk(zeros(size))).toBe(sha256(new Uint8Array(size)));
});

test('hashing petabytes of known zeros lets timers run, and an abort ends it', async () => {
  const stop = new AbortController();
  const reason = new Error('enough');
  const hash = hashDisk(zeros(2 ** 50), { signal: stop.signal });
  const result = expect(hash).rejects.toBe(reason);
  await setTimeout(1);
  stop.abort(reason);
  await result;
});

test('each read that fails rejects', async () => {
  const outcomes = await failEachRead(patterned(5 * 2 ** 20), (source) => hashDisk(rawDisk(source)));
  expect(outcomes).toHaveLength(3);
  for (const { error } of outcomes) expect(error).toBeInstanceOf(InjectedFailure);
});
