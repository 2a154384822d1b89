import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type ByteSource, memorySource } from '../../src/bytes/index.ts';
import { type Disk, memoryDisk, overlay, readBlocks } from '../../src/disk/index.ts';
import { openVhd, overlayVhds, readVhdStream, vhdStream } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf, collect } from '../support/sources.ts';
import { toArray } from '../support/to-array.ts';
import { buildChain, modelChains } from './support/model-chain.ts';
import { tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;

async function layersOf(files: readonly Uint8Array[]): Promise<Disk[]> {
  return Promise.all(files.map((bytes) => openVhd(memorySource(bytes))));
}

/** A source whose reads land later, in no order. */
function lateSource(bytes: Uint8Array, turns: Iterator<number>): ByteSource {
  const source = memorySource(bytes);
  return {
    ...source,
    async readInto(...args) {
      for (let left = turns.next().value as number; left > 0; left--) await Promise.resolve();
      await source.readInto(...args);
    },
  };
}

test('reads that land in any order give the same bytes', async () => {
  const stacks = fc.asyncProperty(modelChains(5), fc.infiniteStream(fc.nat(40)), async (model, turns) => {
    const { files, bytes } = buildChain(model);
    const layers = await Promise.all(files.map((file) => openVhd(lateSource(file, turns))));
    const stacked = overlayVhds(layers);
    const read = new Uint8Array(stacked.size);
    await stacked.readInto(read, 0);
    expect(Buffer.compare(read, bytes)).toBe(0);
  });
  await fc.assert(stacks, { numRuns: 60 });
});

test('a stack of VHDs is what the plain overlay makes of them, extents and bytes, at any place', async () => {
  const stacks = fc.asyncProperty(modelChains(5), fc.nat(), fc.nat(), async (model, from, length) => {
    const { files } = buildChain(model);
    const layers = await layersOf(files);
    const stacked = overlayVhds(layers);
    const plain = overlay(layers);
    expect(stacked.size).toBe(plain.size);
    const offset = from % stacked.size;
    const range = { offset, length: Math.min((length % MIB) + 1, stacked.size - offset) };
    for (const options of [{}, range]) {
      expect(await toArray(stacked.extents(options))).toEqual(await toArray(plain.extents(options)));
    }
    const [one, other] = [new Uint8Array(range.length), new Uint8Array(range.length)];
    await stacked.readInto(one, offset);
    await plain.readInto(other, offset);
    expect(Buffer.compare(one, other)).toBe(0);
  });
  await fc.assert(stacks, { numRuns: 60 });
});

test('other stacks are plain overlays', async () => {
  const vhd = tinyVhd({ size: MIB, blockSize: 65_536, blocks: [] });
  const layers = await layersOf([vhd]);
  const raw = memoryDisk(patterned(MIB));
  await using mixed = overlayVhds([...layers, raw]);
  const bytes = new Uint8Array(MIB);
  await mixed.readInto(bytes, 0);
  expect(Buffer.compare(bytes, patterned(MIB))).toBe(0);
});

test('blocks above 2 MiB come in pieces, whatever the file says of their size', async () => {
  const blockSize = 8 * MIB;
  const data = patterned(blockSize, 3);
  const bitmap = new Uint8Array(blockSize / 4096).fill(0xff);
  bitmap[0] = 0x0f; // the first four sectors are not there
  const bytes = tinyVhd({ size: blockSize, blockSize, blocks: [{ index: 0, bitmap, data }] });
  const expected = data.slice();
  expected.fill(0, 0, 2048);
  const stream = await readVhdStream(chunksOf(bytes));
  const poured = new Uint8Array(blockSize);
  for await (const block of stream.blocks) {
    expect(block.data.byteLength).toBeLessThanOrEqual(2 * MIB);
    poured.set(block.data, block.offset);
  }
  expect(Buffer.compare(poured, expected)).toBe(0);
  await using disk = await openVhd(memorySource(bytes));
  const read = new Uint8Array(blockSize);
  await disk.readInto(read, 0);
  expect(Buffer.compare(read, expected)).toBe(0);
});

test('with reuseMemory the bytes are the same, while each chunk is looked at before the next', async () => {
  const bytes = new Uint8Array(14 * MIB + 512);
  for (let at = 0; at < bytes.byteLength; at += 3 * MIB) bytes.set(patterned(MIB / 2, at).subarray(0, 512), at);
  const disk = memoryDisk(bytes);
  const parent = { uuid: '01020304-0506-0708-090a-0b0c0d0e0f10', name: 'p.vhd' };
  const identity = { uuid: '11020304-0506-0708-090a-0b0c0d0e0f10', timestamp: new Date(0) };
  for (const more of [{}, { parent }]) {
    const own = await vhdStream(disk, { ...identity, ...more });
    const shared = await vhdStream(disk, { ...identity, ...more, reuseMemory: true });
    const copies: Uint8Array[] = [];
    for await (const chunk of shared.chunks) copies.push(chunk.slice());
    expect(Buffer.compare(await collect(copies), await collect(own.chunks))).toBe(0);
  }
  const seen = new Uint8Array(bytes.byteLength);
  const memory = new Set<ArrayBufferLike>();
  for await (const { offset, data } of readBlocks(disk, { reuseMemory: true, blockSize: MIB })) {
    seen.set(data, offset);
    memory.add(data.buffer);
  }
  expect(Buffer.compare(seen, bytes)).toBe(0);
  expect(memory.size).toBeLessThanOrEqual(6);
});
