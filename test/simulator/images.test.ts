import { createHash } from 'node:crypto';
import { readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { changeBitmap, changeBytes } from '../../src/simulator/change-bitmap.ts';
import type { Image } from '../../src/simulator/image.ts';
import { blocksThatMayDiffer, createImageStore, imageDisk, roundToVhdSize } from '../../src/simulator/images.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const TIB = 1024 ** 4;

async function contentOf(image: Image): Promise<Uint8Array> {
  const bytes = new Uint8Array(image.size);
  await image.read(bytes, 0);
  return bytes;
}

test('a new image reads as zeros, takes no file, and rejects what lies past its end', async () => {
  await using dir = await makeTempDir();
  const store = createImageStore(dir.path);
  const image = await store.create(2040 * 1024 ** 3);
  const bytes = patterned(4096);
  await image.read(bytes, 2040 * 1024 ** 3 - 4096);
  expect(bytes).toEqual(new Uint8Array(4096));
  expect(await image.allocatedBlocks()).toEqual([]);
  expect(await readdir(dir.path)).toEqual([]);
  await expect(image.read(new Uint8Array(1), image.size)).rejects.toThrow(RangeError);
  await expect(image.write(new Uint8Array(2), image.size - 1)).rejects.toThrow(RangeError);
});

test('terabytes with little data are cheap', async () => {
  await using dir = await makeTempDir();
  const store = createImageStore(dir.path);
  const image = await store.create(2 * TIB - 2 * MIB);
  image.startTracking();
  const data = patterned(8192);
  for (const at of [0, TIB, 2 * TIB - 2 * MIB - 8192]) await image.write(data, at);
  const snapshot = await image.snapshot();
  await image.write(data, 5 * MIB);
  expect(await snapshot.allocatedBlocks()).toEqual([0, TIB / (2 * MIB), TIB / MIB - 2]);
  expect(await blocksThatMayDiffer(image, snapshot)).toEqual([2]);
  expect(image.readChanges().byteLength).toBe(changeBytes(image.size));
  const [file] = await readdir(dir.path);
  expect((await stat(join(dir.path, file ?? ''))).blocks * 512).toBeLessThan(MIB);
  await store.close();
});

describe('chains', () => {
  test('a snapshot freezes the node, and both sides get leaves of their own', async () => {
    await using dir = await makeTempDir();
    const store = createImageStore(dir.path);
    const live = await store.create(8 * MIB);
    await live.write(patterned(100), 3 * MIB);
    const before = live.nodes[0]?.id;
    const snapshot = await live.snapshot();
    expect(live.nodes.map(({ id }) => id)).toEqual([expect.any(String), before]);
    expect(snapshot.nodes[1]?.id).toBe(before);
    expect(snapshot.nodes[0]?.id).not.toBe(live.nodes[0]?.id);
    await live.write(new Uint8Array(10), 3 * MIB + 5);
    await live.write(patterned(10, 7), 7 * MIB);
    expect(await live.nodes[0]?.ownBlocks()).toEqual([1, 3]);
    expect(await live.allocatedBlocks()).toEqual([1, 3]);
    expect(await snapshot.allocatedBlocks()).toEqual([1]);
    expect((await contentOf(snapshot)).subarray(3 * MIB, 3 * MIB + 100)).toEqual(patterned(100));
    const expected = patterned(100);
    expected.fill(0, 5, 15);
    expect((await contentOf(live)).subarray(3 * MIB, 3 * MIB + 100)).toEqual(expected);
    await store.close();
  });

  test('a second snapshot without a write between adds no node', async () => {
    await using dir = await makeTempDir();
    const store = createImageStore(dir.path);
    const live = await store.create(4 * MIB);
    await live.write(patterned(10), 0);
    const first = await live.snapshot();
    const second = await live.snapshot();
    expect(live.nodes.length).toBe(2);
    expect(second.nodes[1]).toBe(first.nodes[1]);
    expect(await blocksThatMayDiffer(first, second)).toEqual([]);
    await store.close();
  });

  test('what may differ is what any node of only one chain holds, equal content or not, in both directions', async () => {
    await using dir = await makeTempDir();
    const store = createImageStore(dir.path);
    const live = await store.create(16 * MIB);
    await live.write(patterned(16 * MIB), 0);
    const first = await live.snapshot();
    await live.write(patterned(4096), 2 * MIB);
    await live.write(patterned(10).fill(0), 9 * MIB);
    const second = await live.snapshot();
    await live.write(patterned(1), 15 * MIB);
    expect(await blocksThatMayDiffer(second, first)).toEqual([1, 4]);
    expect(await blocksThatMayDiffer(first, second)).toEqual([1, 4]);
    expect(await blocksThatMayDiffer(live, first)).toEqual([1, 4, 7]);
    const stranger = await store.create(16 * MIB);
    await stranger.write(patterned(1), 0);
    expect(await blocksThatMayDiffer(stranger, second)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    await store.close();
  });

  test('files go when the last chain that needs them does', async () => {
    await using dir = await makeTempDir();
    const store = createImageStore(dir.path);
    const live = await store.create(4 * MIB);
    await live.write(patterned(10), 0);
    const snapshot = await live.snapshot();
    const clone = await snapshot.clone();
    await clone.write(patterned(10, 2), 0);
    await live.write(patterned(10, 3), 0);
    expect((await readdir(dir.path)).length).toBe(3);
    await live.destroy();
    await live.destroy();
    expect((await readdir(dir.path)).length).toBe(2);
    await snapshot.destroy();
    expect((await contentOf(clone)).subarray(0, 10)).toEqual(patterned(10, 2));
    expect((await readdir(dir.path)).length).toBe(2);
    await clone.destroy();
    expect(await readdir(dir.path)).toEqual([]);
    await expect(live.read(new Uint8Array(1), 0)).rejects.toThrow('destroyed');
    await expect(live.write(new Uint8Array(1), 0)).rejects.toThrow('destroyed');
  });

  test('writes that overlap in time are all kept, and none is in half a snapshot', async () => {
    await using dir = await makeTempDir();
    const store = createImageStore(dir.path);
    const live = await store.create(4 * MIB);
    await live.write(patterned(4 * MIB, 9), 0);
    const frozen = await live.snapshot();
    const writes = Array.from({ length: 64 }, (_, i) => live.write(patterned(512, i + 1), i * 1024));
    const middle = live.snapshot();
    const late = live.write(patterned(512, 99), 0);
    const snapshot = await middle;
    await Promise.all([...writes, late]);
    const model = patterned(4 * MIB, 9);
    expect(Buffer.compare(await contentOf(frozen), model)).toBe(0);
    for (let i = 0; i < 64; i++) model.set(patterned(512, i + 1), i * 1024);
    expect(Buffer.compare(await contentOf(snapshot), model)).toBe(0);
    model.set(patterned(512, 99), 0);
    expect(Buffer.compare(await contentOf(live), model)).toBe(0);
    await store.close();
  });
});

describe('a raw file', () => {
  test('is used in place, never written to, never removed, and rounded up to 2 MiB', async () => {
    await using dir = await makeTempDir();
    const path = dir.file('disk.raw');
    const content = new Uint8Array(5 * MIB + 512);
    content.set(patterned(512), 5 * MIB);
    await writeFile(path, content);
    const store = createImageStore(dir.path);
    const image = await store.fromRawFile(path);
    expect(image.size).toBe(6 * MIB);
    expect(await image.allocatedBlocks()).toEqual([2]);
    const padded = new Uint8Array(6 * MIB);
    padded.set(content);
    expect(await image.hash()).toBe(createHash('sha256').update(padded).digest('hex'));
    const snapshot = await image.snapshot();
    await image.write(patterned(4, 2), 6 * MIB - 4);
    await image.write(patterned(4, 2), 0);
    padded.set(patterned(4, 2), 0);
    padded.set(patterned(4, 2), 6 * MIB - 4);
    expect(Buffer.compare(await contentOf(image), padded)).toBe(0);
    await image.destroy();
    await snapshot.destroy();
    expect(Buffer.compare(await readFile(path), content)).toBe(0);
    expect(await readdir(dir.path)).toEqual(['disk.raw']);
  });

  test('takes the size that is asked for, unless it is too small', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('a.raw'), patterned(1000));
    const store = createImageStore(dir.path);
    expect((await store.fromRawFile(dir.file('a.raw'), 1024)).size).toBe(1024);
    await expect(store.fromRawFile(dir.file('a.raw'), 999)).rejects.toThrow(RangeError);
    await store.close();
  });
});

test('sizes are rounded as SRs of VHDs do', () => {
  expect([0, 1, 2 * MIB, 2 * MIB + 1].map(roundToVhdSize)).toEqual([2 * MIB, 2 * MIB, 2 * MIB, 4 * MIB]);
});

test('an image only grows, and what is new reads as zeros', async () => {
  await using dir = await makeTempDir();
  const store = createImageStore(dir.path);
  const image = await store.create(3 * MIB);
  await image.write(patterned(MIB), 2 * MIB);
  image.startTracking();
  const snapshot = await image.snapshot();
  await image.resize(5 * MIB);
  await expect(image.resize(4 * MIB)).rejects.toThrow(RangeError);
  await image.write(patterned(1), 2 * MIB + 5); // copies the block up, now with its second half
  expect((await contentOf(image)).subarray(3 * MIB).every((byte) => byte === 0)).toBe(true);
  expect(snapshot.size).toBe(3 * MIB);
  expect(image.readChanges()).toEqual(new Uint8Array([0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0]));
  await store.close();
});

test('every write marks the log, also of equal data and zeros; taking it starts an empty one', async () => {
  await using dir = await makeTempDir();
  const store = createImageStore(dir.path);
  const image = await store.create(2 * MIB);
  expect(image.tracking).toBe(false);
  expect(() => image.readChanges()).toThrow();
  await image.write(patterned(10), 0);
  image.startTracking();
  await image.write(new Uint8Array(2), 65535);
  await image.write(new Uint8Array(0), 640 * 1024);
  expect(image.readChanges()).toEqual(new Uint8Array([0xc0, 0, 0, 0]));
  image.startTracking();
  expect(image.takeChanges()).toEqual(new Uint8Array([0xc0, 0, 0, 0]));
  expect(image.readChanges()).toEqual(new Uint8Array(4));
  expect((await image.clone()).tracking).toBe(false);
  image.stopTracking();
  expect(() => image.takeChanges()).toThrow();
  await store.close();
});

test('the change bitmap agrees with the naive reading, across its pages', () => {
  const blocks = fc.integer({ min: 0, max: 100_000 });
  const mark = fc.record({ block: blocks, count: fc.integer({ min: 0, max: 40_000 }), skew: fc.nat(65535) });
  fc.assert(
    fc.property(fc.array(mark, { maxLength: 4 }), blocks, (marks, sizeInBlocks) => {
      const bitmap = changeBitmap();
      const naive = new Set<number>();
      for (const { block, count, skew } of marks) {
        const offset = block * 65536 + skew;
        const length = count * 65536;
        bitmap.mark(offset, length);
        for (let at = block; at < block + count + (skew > 0 && count > 0 ? 1 : 0); at++) naive.add(at);
      }
      const size = sizeInBlocks * 65536 - (sizeInBlocks > 0 ? 1 : 0);
      const bytes = bitmap.toBytes(size);
      expect(bytes.byteLength).toBe(Math.ceil(sizeInBlocks / 8));
      for (let at = 0; at < sizeInBlocks; at++) {
        if ((((bytes[at >> 3] ?? 0) & (0x80 >> (at & 7))) !== 0) !== naive.has(at)) expect.fail(`block ${at}`);
      }
    }),
    { numRuns: 40 },
  );
});

test('images behave as flat arrays do, whatever is done to them', async () => {
  const at = fc.nat(5 * 2 * MIB);
  const command = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('write' as const),
        which: fc.nat(9),
        at,
        length: fc.oneof(fc.nat(3 * MIB), fc.nat(200_000)),
        seed: fc.nat(99),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constantFrom('snapshot' as const, 'clone' as const), which: fc.nat(9) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('destroy' as const), which: fc.nat(9) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('resize' as const), which: fc.nat(9), by: fc.nat(3 * MIB) }),
    },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.nat(4 * MIB),
      fc.boolean(),
      fc.array(command, { maxLength: 14 }),
      async (start, raw, commands) => {
        await using dir = await makeTempDir();
        const store = createImageStore(dir.path);
        let first = new Uint8Array(start);
        let image: Image;
        if (raw) {
          first.set(patterned(start >> 1, 5), start >> 1);
          await writeFile(dir.file('raw'), first);
          await truncate(dir.file('raw'), start);
          image = await store.fromRawFile(dir.file('raw'), start);
        } else image = await store.create(start);
        const all: { image: Image; model: Uint8Array }[] = [{ image, model: first }];
        for (const step of commands) {
          const one = all[step.which % all.length];
          if (one === undefined) break;
          if (step.kind === 'write') {
            const offset = Math.min(step.at, one.model.byteLength);
            const data = patterned(1, step.seed + 1);
            const bytes = new Uint8Array(Math.min(step.length, one.model.byteLength - offset)).fill(
              step.seed % 3 === 0 ? 0 : (data[0] ?? 1),
            );
            await one.image.write(bytes, offset);
            one.model.set(bytes, offset);
          } else if (step.kind === 'resize') {
            first = new Uint8Array(one.model.byteLength + step.by);
            first.set(one.model);
            await one.image.resize(first.byteLength);
            one.model = first;
          } else if (step.kind === 'destroy') {
            await one.image.destroy();
            all.splice(all.indexOf(one), 1);
          } else all.push({ image: await one.image[step.kind](), model: one.model.slice() });
        }
        for (const { image: one, model } of all) {
          expect(Buffer.compare(await contentOf(one), model)).toBe(0);
          const blocks = new Set(await one.allocatedBlocks());
          for (let offset = 0; offset < model.byteLength; offset += 2 * MIB) {
            const isHole = !blocks.has(offset / (2 * MIB));
            if (isHole) expect(model.subarray(offset, offset + 2 * MIB).every((byte) => byte === 0)).toBe(true);
          }
          // Where two images may not differ by their nodes, they do not.
          for (const other of all) {
            const apart = new Set(await blocksThatMayDiffer(one, other.image));
            for (let offset = 0; offset < Math.min(model.byteLength, other.model.byteLength); offset += 2 * MIB) {
              if (apart.has(offset / (2 * MIB))) continue;
              const end = Math.min(offset + 2 * MIB, model.byteLength, other.model.byteLength);
              expect(Buffer.compare(model.subarray(offset, end), other.model.subarray(offset, end))).toBe(0);
            }
          }
        }
        if (all[0] !== undefined) {
          const { image: one, model } = all[0];
          expect(await one.hash()).toBe(createHash('sha256').update(model).digest('hex'));
          const whole = new Uint8Array(model.byteLength);
          await imageDisk(one).readInto(whole, 0);
          expect(Buffer.compare(whole, model)).toBe(0);
        }
        for (const { image: one } of all) await one.destroy();
        expect(await readdir(dir.path)).toEqual(raw ? ['raw'] : []);
      },
    ),
    { numRuns: 30 },
  );
});
