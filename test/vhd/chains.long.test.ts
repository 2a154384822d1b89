// Five thousand random chains against the model: read, sent, merged whole and in part.
// A failure prints the seed and the path with which it comes back.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { type Disk, memoryDisk, overlay, readBlocks } from '../../src/disk/index.ts';
import { checkVhd, mergeVhdChain, openVhd, openVhdChain, readVhdStream, vhdStream } from '../../src/vhd/index.ts';
import { chunksOfSizes, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { bytesOf, poured } from './support/disk-bytes.ts';
import { buildChain, HOST_BLOCK, layerUuid, type ModelLayer, modelChains } from './support/model-chain.ts';

const DEEPEST = 12;
const SMALL_BLOCK = 64 * 1024;
const parent = { uuid: layerUuid(99), name: 'parent.vhd' };

function same(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  expect(actual.byteLength).toBe(expected.byteLength);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  throw new Error(`byte ${at}: expected ${expected[at]}, got ${actual[at]}`);
}

/** A smaller disk, grown to `size`: what was not there is zero. */
function grown(bytes: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(size);
  result.set(bytes);
  return result;
}

const openAll = (files: readonly Uint8Array[]) => Promise.all(files.map((file) => openVhd(memorySource(file))));

/** Reads pieces of `step` bytes, the last ones first. */
async function backwards(disk: Disk, step: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size);
  for (let at = Math.floor((disk.size - 1) / step) * step; at >= 0; at -= step) {
    await disk.readInto(bytes.subarray(at, at + step), at);
  }
  return bytes;
}

/** Everything that is done with a chain in memory; the layers from `cut` on also as a delta against those below. */
async function holdAgainstModel(layers: readonly ModelLayer[], blockSize: number, cut: number): Promise<void> {
  const { files, bytes } = buildChain(layers, blockSize);
  const disk = overlay(await openAll(files));
  same(await bytesOf(disk), bytes);
  same(await poured(readBlocks(disk, { blockSize: 100_000 }), disk.size), bytes);
  same(await backwards(disk, 3 * blockSize - 7777), bytes);

  const full = await vhdStream(disk);
  const sent = await collect(full.chunks);
  expect(sent.byteLength).toBe(full.length);
  same(await bytesOf(await openVhd(memorySource(sent))), bytes);

  const from = cut % layers.length;
  if (from === 0) return;
  const below = buildChain(layers.slice(0, from), blockSize).bytes;
  const delta = await vhdStream(overlay(await openAll(files.slice(from))), { parent });
  const deltaBytes = await collect(delta.chunks);
  const received = await readVhdStream(chunksOfSizes(deltaBytes, [4096, 511, 2_000_003]), { exact: true });
  same(await poured(received.blocks, received.size, grown(below, received.size)), bytes);
  same(await bytesOf(overlay([memoryDisk(below), await openVhd(memorySource(deltaBytes))])), bytes);
}

test('4,200 chains of small blocks, in memory', async () => {
  await fc.assert(
    fc.asyncProperty(modelChains(DEEPEST, SMALL_BLOCK), fc.nat(DEEPEST), (layers, cut) =>
      holdAgainstModel(layers, SMALL_BLOCK, cut),
    ),
    { numRuns: 4200 },
  );
});

test('300 chains of blocks as hosts use them, in memory', async () => {
  await fc.assert(
    fc.asyncProperty(modelChains(DEEPEST), fc.nat(DEEPEST), (layers, cut) => holdAgainstModel(layers, HOST_BLOCK, cut)),
    { numRuns: 300 },
  );
});

test('500 chains of files, found by their links and merged', async () => {
  await using dir = await makeTempDir();
  await fc.assert(
    fc.asyncProperty(modelChains(DEEPEST, SMALL_BLOCK), fc.nat(DEEPEST), async (layers, cut) => {
      const { files, bytes } = buildChain(layers, SMALL_BLOCK);
      const folder = dir.file('chain');
      await mkdir(folder);
      try {
        const paths = files.map((_, depth) => `${folder}/${depth}.vhd`);
        await Promise.all(files.map((file, depth) => writeFile(paths[depth]!, file)));
        await using chain = await openVhdChain(paths.at(-1)!);
        expect(chain.paths.length).toBe(layers.length);
        same(await bytesOf(chain), bytes);

        await mergeVhdChain(paths, `${folder}/full.vhd`);
        expect((await checkVhd(`${folder}/full.vhd`, { level: 'content' })).findings).toEqual([]);
        await using full = await openVhd(`${folder}/full.vhd`);
        expect(full.uuid).toBe(layerUuid(layers.length - 1));
        same(await bytesOf(full), bytes);

        const from = cut % layers.length;
        if (from === 0) return;
        await mergeVhdChain(paths.slice(from), `${folder}/delta.vhd`);
        await using merged = await openVhdChain(`${folder}/delta.vhd`);
        expect(merged.paths.length).toBe(from + 1);
        same(await bytesOf(merged), bytes);
      } finally {
        await rm(folder, { recursive: true });
      }
    }),
    { numRuns: 500 },
  );
});
